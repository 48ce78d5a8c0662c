# The server of the TLS matrix as a Rack application; TLS_LOG names its log, TLS_BED the folder with the pool.
require "digest"
require "json"
require "openssl" # Puma looks at the certificate of a client with it, and leaves it to us to load

LETTERS = File.binread("#{ENV.fetch("TLS_BED")}/pool")
LOG = File.open(ENV.fetch("TLS_LOG"), "a").tap { |file| file.sync = true }

# Answers in chunks: its length is not told.
class Pieces
  def initialize(text)
    @text = text
  end

  def each
    0.step(@text.bytesize - 1, 16_000) { |at| yield @text.byteslice(at, 16_000) }
  end
end

run(lambda do |env|
  body = env["rack.input"].read.to_s
  number, size = env["PATH_INFO"].split("/").last(2).map(&:to_i)
  _, port, _, host = env["puma.socket"].peeraddr
  LOG.write(JSON.generate(number: number, method: env["REQUEST_METHOD"], bytes: body.bytesize,
                          sha256: Digest::SHA256.hexdigest(body), peer: "#{host}:#{port}") + "\n")
  start = number * 4099 % 1_000_000
  answer = ("#{number}." + LETTERS.byteslice(start, size)).byteslice(0, size)
  fields = { "Content-Type" => "text/plain" }
  chunked = number % 4 == 3
  fields["Content-Length"] = size.to_s unless chunked
  [number % 7 == 0 ? 201 : 200, fields, chunked ? Pieces.new(answer) : [answer]]
end)
