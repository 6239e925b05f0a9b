// UpscalerJS's models in node: reads images as rows of bytes, writes their results as floats in [0, 1].
//
//     npm install @tensorflow/tfjs @tensorflow/tfjs-backend-wasm @upscalerjs/esrgan-slim @upscalerjs/esrgan-thick
//     UPSCALERJS=FOLDER python tests/benchmarks/inference.py --only upscalerjs_slim srgan_hub
//
// They run with TensorFlow.js's WebAssembly, the fastest that it has without a GPU and without native code.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [folder, kind] = process.argv.slice(2);
const modules = path.join(folder, "node_modules");
const load = createRequire(path.join(modules, "any.js"));
const tf = load("@tensorflow/tfjs");
const wasm = load("@tensorflow/tfjs-backend-wasm");
wasm.setWasmPaths(path.join(modules, "@tensorflow/tfjs-backend-wasm/dist/"));
await tf.setBackend("wasm");

// The two layers that are not TensorFlow's.
tf.serialization.registerClass(
  class extends tf.layers.Layer {
    static className = "MultiplyBeta";
    call(inputs) {
      return tf.mul(inputs[0], 0.2);
    }
  },
);
tf.serialization.registerClass(
  class extends tf.layers.Layer {
    static className = "PixelShuffle4x";
    computeOutputShape(shape) {
      return [...shape.slice(0, 3), 3];
    }
    call(inputs) {
      return tf.depthToSpace(inputs[0], 4);
    }
  },
);

const source = path.join(modules, `@upscalerjs/esrgan-${kind}/models/x4`);
const { modelTopology, weightsManifest } = JSON.parse(fs.readFileSync(path.join(source, "model.json")));
const weightSpecs = weightsManifest.flatMap((group) => group.weights);
const parts = weightsManifest.flatMap((group) => group.paths).map((name) => fs.readFileSync(path.join(source, name)));
const bytes = Buffer.concat(parts);
const weightData = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
const model = await tf.loadLayersModel(tf.io.fromMemory({ modelTopology, weightSpecs, weightData }));
const range = kind === "slim" ? 255 : 1; // what each takes and gives

const read = (count) => {
  const buffer = Buffer.alloc(count);
  for (let got = 0; got < count; ) {
    const more = fs.readSync(0, buffer, got, count - got);
    if (more === 0) process.exit();
    got += more;
  }
  return buffer;
};
for (;;) {
  const size = read(8);
  const [height, width] = [size.readUInt32LE(0), size.readUInt32LE(4)];
  const levels = read(height * width * 3);
  const result = tf.tidy(() => {
    const lr = tf.tensor(Float32Array.from(levels, (level) => (level * range) / 255), [1, height, width, 3]);
    return tf.clipByValue(tf.div(model.predict(lr), range), 0, 1);
  });
  const floats = Buffer.from((await result.data()).buffer);
  result.dispose();
  for (let sent = 0; sent < floats.length; ) sent += fs.writeSync(1, floats, sent);
}
