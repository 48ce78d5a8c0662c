// A net/http server over TLS without HTTP/2 for scripts/bench tls: prints its port; answers 1 KB; ends with its standard input.
package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	certificate, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(plain.Addr().(*net.TCPAddr).Port)
	body := bytes.Repeat([]byte("x"), 1024)
	server := http.Server{
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		Handler:      http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(body) }),
	}
	go server.Serve(tls.NewListener(plain, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	io.Copy(io.Discard, os.Stdin)
}
