// What server and client of the TLS matrix have in common. The folder with certificates and pool is named by TLS_BED.
const crypto = require("crypto");
const fs = require("fs");

const bed = process.env.TLS_BED;
const letters = fs.readFileSync(`${bed}/pool`);
exports.read = (name) => fs.readFileSync(`${bed}/${name}`);
exports.sha256 = (data) => crypto.createHash("sha256").update(data).digest("hex");

// A body, as exchanges.py says.
exports.content = (number, size, request) => {
  const start = (number * 4099 + (request ? 500009 : 0)) % 1000000;
  return Buffer.concat([Buffer.from(`${number}.`), letters.subarray(start, start + size)]).subarray(0, size);
};

exports.numbers = (path) => path.split("/").slice(-2).map(Number);

// A line of a log, by one call.
exports.logger = (name) => {
  const file = fs.openSync(name, "a");
  return (entry) => fs.writeSync(file, JSON.stringify(entry) + "\n");
};
