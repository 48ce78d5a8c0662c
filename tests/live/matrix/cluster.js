// Two workers of Node's cluster: the primary accepts and passes the connections on.
const cluster = require('cluster');
const fs = require('fs');

if (cluster.isPrimary) {
  let ready = 0;
  cluster.on('listening', (worker, address) => { if (++ready === 2) console.log(address.port); });
  cluster.fork();
  cluster.fork();
} else {
  const name = fs.readFileSync('/proc/self/comm', 'utf8').trim();
  require('http').createServer((request, response) => {
    request.resume().on('end', () => {
      const [number, size] = request.url.split('/').slice(-2);
      const body = (number + '.').repeat(size / (number.length + 1) + 1).slice(0, size);
      response.writeHead(200, {'Content-Type': 'text/plain', 'Content-Length': body.length, 'X-Process': process.pid + ' ' + name});
      response.end(body);
    });
  }).listen(0, '127.0.0.1');
}
