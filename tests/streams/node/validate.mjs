// Which events fit their schemas, one letter each, 1 or 0: node validate.mjs SCHEMAS EVENTS
// SCHEMAS: {name: schema}. EVENTS: one a line, {name: event}, which fits if each does.
import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const ajv = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false });
addFormats.default(ajv);
const schemas = JSON.parse(readFileSync(process.argv[2], "utf8"));
const validators = Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, ajv.compile(schema)]));
const lines = readFileSync(process.argv[3], "utf8").split("\n").filter(Boolean);
const fits = (events) => Object.entries(events).every(([name, event]) => validators[name](event));
console.log(lines.map((line) => (fits(JSON.parse(line)) ? "1" : "0")).join(""));
