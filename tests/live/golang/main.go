// A server and a client of HTTP/1 over TLS that log what they exchanged, one JSON line each, for tests/live/test_go.py.
//
//	golang serve [flags]     prints its port, then a line for each answer; ends with its standard input
//	golang call [flags]      prints a line for each answer, and "done"
//	golang layout            prints where things are in the structures that bpf/go.h reads
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"sync"
)

var (
	address     = flag.String("address", "127.0.0.1:0", "where to serve, or whom to call")
	folder      = flag.String("folder", ".", "of ca.pem, cert.pem and key.pem")
	name        = flag.String("name", "x", "the first element of the paths")
	wrap        = flag.String("wrap", "", "what is between TLS and the socket: counted, buffered, pipe, tls")
	connections = flag.Int("connections", 1, "at a time")
	exchanges   = flag.Int("exchanges", 1, "on each connection")
	sizes       = flag.String("sizes", "[0]", "of the bodies, in turn")
	mode        = flag.String("mode", "", "stall: read the answer when a line comes on standard input; leave: do not read it")
	wait        = flag.Bool("wait", false, "begin when a line comes on standard input")
	step        = flag.Bool("step", false, "make each exchange when a line comes on standard input")
)

var output sync.Mutex

// An exchange as one side saw it.
type exchange struct {
	Path    string
	Request int64
	Answer  int64
	Status  int
	Local   string
	Remote  string
	Error   string
}

func (e exchange) print() {
	line, err := json.Marshal(e)
	check(err)
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(line))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Of size bytes: "text;text;..."
func body(text string, size int) []byte {
	one := []byte(text + ";")
	return bytes.Repeat(one, size/len(one)+1)[:size]
}

// The first field is no interface, so that nothing can be learnt from the first word.
type counted struct {
	bytes int64
	net.Conn
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes += int64(n)
	return n, err
}

type buffered struct {
	reader *bufio.Reader
	net.Conn
}

func (b buffered) Read(p []byte) (int, error) { return b.reader.Read(p) }

// What carries TLS.
func carrier(c net.Conn) net.Conn {
	switch *wrap {
	case "counted":
		return &counted{Conn: c}
	case "buffered":
		return buffered{bufio.NewReader(c), c}
	case "pipe":
		near, far := net.Pipe()
		go func() { io.Copy(far, c); far.Close() }()
		go func() { io.Copy(c, far); c.Close() }()
		return near
	}
	return c
}

func pair() (tls.Certificate, *x509.CertPool) {
	certificate, err := tls.LoadX509KeyPair(*folder+"/cert.pem", *folder+"/key.pem")
	check(err)
	ca, err := os.ReadFile(*folder + "/ca.pem")
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return certificate, pool
}

type listener struct {
	net.Listener
	config *tls.Config
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if *wrap == "tls" {
		return tls.Server(tls.Server(c, l.config), l.config), nil
	}
	return tls.Server(carrier(c), l.config), nil
}

func serve() {
	certificate, pool := pair()
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	plain, err := net.Listen("tcp", *address)
	check(err)
	fmt.Println(plain.Addr().(*net.TCPAddr).Port)
	server := http.Server{
		ErrorLog:     log.New(io.Discard, "", 0),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			e := exchange{Path: r.URL.RequestURI(), Status: 200, Remote: r.RemoteAddr}
			e.Local = r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()
			request, err := io.ReadAll(r.Body)
			check(err)
			want, _ := strconv.Atoi(r.URL.Query().Get("q"))
			if !bytes.Equal(request, body("q:"+e.Path, want)) {
				e.Error = "another request"
			}
			size, _ := strconv.Atoi(r.URL.Query().Get("a"))
			answer := body("a:"+e.Path, size)
			if r.URL.Query().Get("chunked") == "" {
				w.Header().Set("Content-Length", strconv.Itoa(size))
			}
			n := 0
			if r.URL.Query().Get("chunked") != "" { // in pieces, so that it has chunks
				n, err = w.Write(answer[:size/3])
				w.(http.Flusher).Flush()
				answer = answer[size/3:]
			}
			m, err2 := w.Write(answer)
			if err == nil {
				err = err2
			}
			if err != nil {
				e.Error = err.Error()
			}
			e.Request, e.Answer = int64(len(request)), int64(n+m)
			e.print()
		}),
	}
	go server.Serve(listener{plain, config})
	io.Copy(io.Discard, os.Stdin)
}

func dial() *tls.Conn {
	certificate, pool := pair()
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: pool, ServerName: "server.test"}
	c, err := net.Dial("tcp", *address)
	check(err)
	if *wrap == "tls" {
		return tls.Client(tls.Client(c, config), config)
	}
	return tls.Client(carrier(c), config)
}

func call(number int, sizes []int) {
	transport := &http.Transport{
		DialTLSContext:  func(context.Context, string, string) (net.Conn, error) { return dial(), nil },
		MaxConnsPerHost: 1,
		TLSNextProto:    map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	client := http.Client{Transport: transport}
	input := bufio.NewReader(os.Stdin)
	for i := 0; i < *exchanges; i++ {
		if *step {
			input.ReadString('\n')
		}
		q, a := sizes[(number+i)%len(sizes)], sizes[(number+2*i)%len(sizes)]
		path := fmt.Sprintf("/%s/c%d/x%d?q=%d&a=%d", *name, number, i, q, a)
		if i%3 == 2 {
			path += "&chunked=1"
		}
		request, err := http.NewRequest("POST", "https://server.test"+path, bytes.NewReader(body("q:"+path, q)))
		check(err)
		answer, err := client.Do(request)
		check(err)
		data, err := io.ReadAll(answer.Body)
		check(err)
		answer.Body.Close()
		if !bytes.Equal(data, body("a:"+path, a)) {
			log.Fatal("another answer to ", path)
		}
		exchange{Path: path, Request: int64(q), Answer: int64(len(data)), Status: answer.StatusCode}.print()
	}
	transport.CloseIdleConnections()
}

// A client that does not read for a while, or not all.
func stall(size int) {
	c := dial()
	path := fmt.Sprintf("/%s/%s?q=0&a=%d", *name, *mode, size)
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: server.test\r\n\r\n", path)
	check(err)
	head := make([]byte, 1000)
	_, err = io.ReadFull(c, head)
	check(err)
	fmt.Println("stalled")
	bufio.NewReader(os.Stdin).ReadString('\n')
	if *mode == "leave" {
		check(c.Close())
		return
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(head), c)), nil)
	check(err)
	data, err := io.ReadAll(answer.Body)
	check(err)
	exchange{Path: path, Answer: int64(len(data)), Status: answer.StatusCode}.print()
	check(c.Close())
}

// The offset of each field, "conn.fd.family": through pointers too.
func layout() {
	out := map[string]uintptr{}
	fields := func(prefix string, t reflect.Type) {
		for i := 0; i < t.NumField(); i++ {
			out[prefix+t.Field(i).Name] = t.Field(i).Offset
		}
	}
	field := func(t reflect.Type, name string) reflect.Type {
		f, found := t.FieldByName(name)
		if !found {
			log.Fatal("no ", name)
		}
		return f.Type
	}
	fields("Conn.", reflect.TypeOf(tls.Conn{}))
	netFD := field(field(reflect.TypeOf(net.TCPConn{}), "conn"), "fd").Elem()
	fields("netFD.", netFD)
	fields("FD.", field(netFD, "pfd"))
	line, err := json.Marshal(out)
	check(err)
	fmt.Println(string(line))
}

func main() {
	command := os.Args[1]
	check(flag.CommandLine.Parse(os.Args[2:]))
	if command == "layout" {
		layout()
		return
	}
	if command == "serve" {
		serve()
		return
	}
	var list []int
	check(json.Unmarshal([]byte(*sizes), &list))
	if *wait {
		fmt.Println("ready")
		bufio.NewReader(os.Stdin).ReadString('\n')
	}
	if *mode != "" {
		stall(list[0])
	} else {
		var group sync.WaitGroup
		for number := 0; number < *connections; number++ {
			group.Add(1)
			go func(number int) { defer group.Done(); call(number, list) }(number)
		}
		group.Wait()
	}
	fmt.Println("done")
}
