// The Go programs of the TLS matrix: `matrix server LOG` prints its port and serves until killed, `matrix client PORT LOG`
// makes the connections that standard input names, eight at a time. TLS_BED is the folder with certificates and pool.
package main

import (
	"bufio"
	"bytes"
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

// A body, as exchanges.py says.
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
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      authorities,
		ClientCAs:    authorities,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		NextProtos:   []string{"http/1.1"},
	}
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
		chunked := number%4 == 3
		if !chunked {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		if number%7 == 0 {
			w.WriteHeader(http.StatusCreated)
		}
		text := content(number, size, false)
		if !chunked {
			w.Write(text)
			return
		}
		w.(http.Flusher).Flush()
		for len(text) > 0 {
			n := len(text)
			if n > 16000 {
				n = 16000
			}
			w.Write(text[:n])
			text = text[n:]
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := http.Server{
		Handler:      http.HandlerFunc(answer),
		TLSConfig:    configuration("server"),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	must(server.ServeTLS(listener, "", ""))
}

func exchange(client *http.Client, port, reading, word string, file *os.File) {
	words := strings.Split(word, ",")
	number, size := numbers(words[1])
	bytesOut, err := strconv.Atoi(words[2])
	must(err)
	var body io.Reader
	if bytesOut > 0 {
		body = bytes.NewReader(content(number, bytesOut, true))
	}
	request, err := http.NewRequest(words[0], "https://127.0.0.1:"+port+words[1], body)
	must(err)
	if body != nil {
		request.Header.Set("Content-Type", "text/plain")
	}
	var local string
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { local = c.Conn.LocalAddr().String() }}
	answer, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	must(err)
	hash, have, piece := sha256.New(), 0, make([]byte, 65536)
	for {
		if reading == "partial" {
			piece = piece[:90]
			if have < 2000 {
				piece = piece[:7]
			}
		}
		n, err := answer.Body.Read(piece)
		if reading == "stalled" && have == 0 && size > 1<<20 {
			time.Sleep(400 * time.Millisecond)
		}
		hash.Write(piece[:n])
		have += n
		if err == io.EOF || reading == "abandoned" && have > 100000 {
			break
		}
		must(err)
	}
	answer.Body.Close() // before its end: closes the connection
	fmt.Fprintf(file, `{"number": %d, "status": %d, "bytes": %d, "sha256": "%x", "local": %q}`+"\n",
		number, answer.StatusCode, have, hash.Sum(nil), local)
}

func converse(port, line string, configuration *tls.Config, file *os.File) {
	transport := &http.Transport{TLSClientConfig: configuration.Clone(), DisableCompression: true, MaxConnsPerHost: 1}
	client := &http.Client{Transport: transport}
	words := strings.Fields(line)
	for place, word := range words[1:] {
		reading := words[0]
		if reading == "abandoned" && place < len(words)-2 {
			reading = "whole"
		}
		exchange(client, port, reading, word, file)
	}
	transport.CloseIdleConnections()
}

func main() {
	if os.Args[1] == "server" {
		serve(opened(os.Args[2]))
	}
	configuration, file := configuration("client"), opened(os.Args[3])
	lines := make(chan string)
	var workers sync.WaitGroup
	for i := 0; i < 8; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for line := range lines {
				converse(os.Args[2], line, configuration, file)
			}
		}()
	}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	for input.Scan() {
		lines <- input.Text()
	}
	close(lines)
	workers.Wait()
}
