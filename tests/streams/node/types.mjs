// TypeScript of every event of an AsyncAPI document, into a folder: node types.mjs DOCUMENT FOLDER
import { readFileSync } from "node:fs";
import { TypeScriptFileGenerator } from "@asyncapi/modelina";
import { Parser } from "@asyncapi/parser";

const { document } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const constraints = { propertyKey: ({ objectPropertyModel }) => objectPropertyModel.propertyName };
const generator = new TypeScriptFileGenerator({ modelType: "interface", mapType: "record", constraints });
const made = await generator.generateToFiles(document, process.argv[3], { exportType: "named" });
console.log(JSON.stringify(made.map((model) => model.modelName)));
