// Where the files of the library lie that the tests read. Compiled elsewhere, the tests are told.
import { pathToFileURL } from "node:url";

const tree = process.env["CONNECTPLUGIN_TREE"];

export const root = tree ? pathToFileURL(tree + "/") : new URL("../../../../", import.meta.url);
