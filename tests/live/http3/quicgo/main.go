// HTTP/3 by quic-go: a server that prints its port, and a client that makes connections of one exchange each.
//
//	http3 server HOST CERTIFICATE KEY
//	http3 client HOST PORT CONNECTIONS    prints "done" and waits for the end of its input
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"

	"github.com/quic-go/quic-go/http3"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(host, certificate, key string) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	socket, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	check(err)
	fmt.Println(socket.LocalAddr().(*net.UDPAddr).Port)
	server := http3.Server{
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = w.Write(make([]byte, 100_000))
		}),
	}
	check(server.Serve(socket))
}

func call(url string) {
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.Close()
	request, err := http.NewRequestWithContext(context.Background(), "GET", url, nil)
	check(err)
	answer, err := transport.RoundTrip(request)
	check(err)
	body, err := io.ReadAll(answer.Body)
	check(err)
	if len(body) != 100_000 {
		check(fmt.Errorf("%d bytes", len(body)))
	}
}

func main() {
	if os.Args[1] == "server" {
		serve(os.Args[2], os.Args[3], os.Args[4])
	}
	connections, err := strconv.Atoi(os.Args[4])
	check(err)
	for range connections {
		call("https://" + net.JoinHostPort(os.Args[2], os.Args[3]) + "/http3")
	}
	fmt.Println("done")
	_, _ = io.Copy(io.Discard, os.Stdin)
}
