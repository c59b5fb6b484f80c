// What the official parser says of an AsyncAPI document, as JSON: node judge.mjs DOCUMENT
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const told = diagnostics.map(({ code, message, path, severity }) => ({ code, message, path, severity }));
const channels = document?.allChannels().all().map((channel) => channel.id());
console.log(JSON.stringify({ diagnostics: told, channels }));
