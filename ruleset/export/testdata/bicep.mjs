// Says where a document of Bicep on standard input is not what its grammar expects. The argument is the folder of web-tree-sitter.
import {readFileSync} from "node:fs";

const folder = process.argv[2];
const {Parser, Language} = await import(folder + "/web-tree-sitter.js");
await Parser.init();
const parser = new Parser();
parser.setLanguage(await Language.load(folder + "/tree-sitter-bicep.wasm"));

function look(node) {
  if (node.isError || node.isMissing) {
    console.log(`${node.startPosition.row + 1}:${node.startPosition.column + 1}: ${node.isMissing ? "missing " : ""}${node.type}`);
  }
  node.children.forEach(look);
}
look(parser.parse(readFileSync(0, "utf8")).rootNode);
