# `client.rb PORT LOG` makes the connections that standard input names, in eight threads with Net::HTTP.
require "digest"
require "json"
require "net/http"

BED = ENV.fetch("TLS_BED")
LETTERS = File.binread("#{BED}/pool")
PORT = ARGV[0].to_i
LOG = File.open(ARGV[1], "a").tap { |file| file.sync = true }
CERTIFICATE = OpenSSL::X509::Certificate.new(File.read("#{BED}/client.pem"))
KEY = OpenSSL::PKey.read(File.read("#{BED}/client.key"))
Thread.abort_on_exception = true

def content(number, size)
  start = (number * 4099 + 500_009) % 1_000_000
  ("#{number}." + LETTERS.byteslice(start, size)).byteslice(0, size)
end

def open_connection
  http = Net::HTTP.new("127.0.0.1", PORT, nil)
  http.use_ssl = true
  http.ca_file = "#{BED}/ca.pem"
  http.cert = CERTIFICATE
  http.key = KEY
  http.max_retries = 0
  http.keep_alive_timeout = 60
  http.read_timeout = 60
  http.start
end

def take(answer, reading, size)
  hash = Digest::SHA256.new
  have = 0
  answer.read_body do |piece|
    sleep 0.4 if reading == "stalled" && have == 0 && size > 1 << 20
    sleep 0.001 if reading == "partial"
    hash << piece
    have += piece.bytesize
    break if reading == "abandoned" && have > 100_000
  end
  [have, hash.hexdigest]
end

def exchange(http, reading, word)
  method, path, bytes = word.split(",")
  number, size = path.split("/").last(2).map(&:to_i)
  request = Net::HTTPGenericRequest.new(method, bytes != "0", true, path, "Accept-Encoding" => "identity")
  if bytes != "0"
    request["Content-Type"] = "text/plain"
    request.body = content(number, bytes.to_i)
  end
  catch(:enough) do
    http.request(request) do |answer| # by another connection, when the server has asked to close the one before
      local = http.instance_variable_get(:@socket).io.to_io.local_address
      have, hash = take(answer, reading, size)
      LOG.write(JSON.generate(number: number, status: answer.code.to_i, bytes: have, sha256: hash,
                              local: "#{local.ip_address}:#{local.ip_port}") + "\n")
      throw :enough if reading == "abandoned" # which closes the connection
    end
  end
end

def connection(line)
  reading, *words = line.split
  http = open_connection
  words.each_with_index do |word, place|
    exchange(http, reading == "abandoned" && place < words.size - 1 ? "whole" : reading, word)
  end
  http.finish if http.started?
end

lines = Thread::SizedQueue.new(8)
threads = Array.new(8) do
  Thread.new do
    while (line = lines.pop)
      connection(line)
    end
  end
end
while (line = $stdin.gets)
  lines << line
end
lines.close
threads.each(&:join)
