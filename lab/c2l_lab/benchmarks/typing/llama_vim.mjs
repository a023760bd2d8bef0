// Greedy decoding with node-llama-cpp: one JSON line {ids, most, stops} in, one JSON line of token ids out.
// Arguments: the folder where node-llama-cpp is installed, the GGUF file, the context size, the number of threads.
import {createInterface} from "node:readline";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import {join} from "node:path";

const [folder, path, size, threads] = process.argv.slice(2);
const found = createRequire(join(folder, "package.json")).resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(found).href);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: path});
const context = await model.createContext({contextSize: Number(size), threads: Number(threads)});
const sequence = context.getSequence();
console.log("[]");
for await (const line of createInterface({input: process.stdin})) {
    const {ids, most, stops} = JSON.parse(line);
    await sequence.adaptStateToTokens(ids.slice(0, -1), false);
    const out = [];
    for await (const token of sequence.evaluate(ids.slice(sequence.nextTokenIndex), {temperature: 0, yieldEogToken: true})) {
        if (stops.includes(token)) break;
        out.push(token);
        if (out.length >= most) break;
    }
    console.log(JSON.stringify(out));
}
