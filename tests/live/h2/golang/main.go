// The Go programs of the HTTP/2 matrix.
//
//	h2 server LOG             net/http: HTTP/2 inside TLS, or in clear if H2_CLEAR is set; and HTTP/1 beside it
//	h2 client PORT LOG        makes the connections that standard input names, the exchanges of one side by side
//	h2 grpc-server            grpc-go: the service matrix.Echo, and the one for health
//	h2 grpc-client PORT N     calls both: some unary calls, then a stream of N messages each way
//
// Servers print their port and serve until killed. TLS_BED is the folder with certificates and pool.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	bed     = os.Getenv("TLS_BED")
	clear   = os.Getenv("H2_CLEAR") != ""
	letters = read("pool")
)

func read(name string) []byte {
	data, err := os.ReadFile(bed + "/" + name)
	must(err)
	return data
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func opened(name string) *os.File {
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(err)
	return file
}

// A body, as tests/live/tls/exchanges.py says.
func content(number, size int, request bool) []byte {
	start := number * 4099
	if request {
		start += 500009
	}
	start %= 1000000
	return append([]byte(strconv.Itoa(number)+"."), letters[start:start+size]...)[:size]
}

func numbers(path string) (number, size int) {
	words := strings.Split(path, "/")
	number, err := strconv.Atoi(words[len(words)-2])
	must(err)
	size, err = strconv.Atoi(words[len(words)-1])
	must(err)
	return number, size
}

func configuration(role string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(bed+"/"+role+".pem", bed+"/"+role+".key")
	must(err)
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(read("ca.pem"))
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: authorities, ServerName: "localhost"}
}

func protocols() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &p
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return listener
}

func serve(file *os.File) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		number, size := numbers(r.URL.Path)
		fmt.Fprintf(file, `{"number": %d, "method": %q, "bytes": %d, "sha256": "%x", "peer": %q}`+"\n",
			number, r.Method, len(body), sha256.Sum256(body), r.RemoteAddr)
		w.Header().Set("Content-Type", "text/plain")
		if number%4 != 3 {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		if number%7 == 0 {
			w.WriteHeader(http.StatusCreated)
		}
		text := content(number, size, false)
		if number%4 == 3 { // in pieces, without a length, and trailers behind them
			w.Header().Set("Trailer", "X-Sum")
			w.(http.Flusher).Flush()
			for at := 0; at < len(text); at += 16000 {
				w.Write(text[at:min(at+16000, len(text))])
			}
			w.Header().Set("X-Sum", strconv.Itoa(number))
			return
		}
		w.Write(text)
	}
	listener := listen()
	server := http.Server{
		Handler: http.HandlerFunc(answer), TLSConfig: configuration("server"), Protocols: protocols(),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	if clear {
		must(server.Serve(listener))
	}
	must(server.ServeTLS(listener, "", ""))
}

func exchange(client *http.Client, port, word string, file *os.File) {
	words := strings.Split(word, ",")
	number, _ := numbers(words[1])
	size, err := strconv.Atoi(words[2])
	must(err)
	var body io.Reader
	if size > 0 {
		body = bytes.NewReader(content(number, size, true))
	}
	scheme := "https"
	if clear {
		scheme = "http"
	}
	request, err := http.NewRequest(words[0], scheme+"://127.0.0.1:"+port+words[1], body)
	must(err)
	if body != nil {
		request.Header.Set("Content-Type", "text/plain")
	}
	var local string
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { local = c.Conn.LocalAddr().String() }}
	answer, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	must(err)
	data, err := io.ReadAll(answer.Body)
	must(err)
	answer.Body.Close()
	fmt.Fprintf(file, `{"number": %d, "status": %d, "bytes": %d, "sha256": "%x", "local": %q, "version": %q}`+"\n",
		number, answer.StatusCode, len(data), sha256.Sum256(data), local, answer.Proto)
}

// One connection, its exchanges side by side.
func converse(port, line string, file *os.File) {
	protocols := protocols()
	protocols.SetHTTP1(false)
	protocols.SetHTTP2(!clear)
	protocols.SetUnencryptedHTTP2(clear)
	transport := &http.Transport{
		TLSClientConfig: configuration("client"), DisableCompression: true, MaxConnsPerHost: 1, Protocols: protocols,
	}
	client := &http.Client{Transport: transport}
	words := strings.Fields(line)[1:]
	exchange(client, port, words[0], file) // so that the others find the connection
	var running sync.WaitGroup
	for _, word := range words[1:] {
		running.Add(1)
		go func() {
			defer running.Done()
			exchange(client, port, word, file)
		}()
	}
	running.Wait()
	transport.CloseIdleConnections()
}

func connections(port string, file *os.File) {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	var running sync.WaitGroup
	places := make(chan struct{}, 4)
	for input.Scan() {
		line := input.Text()
		running.Add(1)
		places <- struct{}{}
		go func() {
			converse(port, line, file)
			<-places
			running.Done()
		}()
	}
	running.Wait()
}

func main() {
	switch os.Args[1] {
	case "server":
		serve(opened(os.Args[2]))
	case "client":
		connections(os.Args[2], opened(os.Args[3]))
	case "grpc-server":
		serveGrpc()
	case "grpc-client":
		many, err := strconv.Atoi(os.Args[3])
		must(err)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		callGrpc(ctx, "127.0.0.1:"+os.Args[2], many)
	}
}
