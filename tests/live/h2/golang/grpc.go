package main

import (
	"context"
	"fmt"
	"io"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// A message as it is: this service needs no schema.
type raw struct{ data []byte }

// The codec of protocol buffers, and of raw.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) ([]byte, error) {
	if r, ok := v.(*raw); ok {
		return r.data, nil
	}
	return proto.Marshal(v.(proto.Message))
}

func (codec) Unmarshal(data []byte, v any) error {
	if r, ok := v.(*raw); ok {
		r.data = append([]byte(nil), data...)
		return nil
	}
	return proto.Unmarshal(data, v.(proto.Message))
}

func init() { encoding.RegisterCodec(codec{}) }

func echoed(message []byte) []byte { return append([]byte("to "), message...) }

func one(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var asked raw
	if err := decode(&asked); err != nil {
		return nil, err
	}
	return &raw{echoed(asked.data)}, nil
}

func many(_ any, stream grpc.ServerStream) error {
	stream.SetTrailer(metadata.Pairs("x-last", "1"))
	for {
		var asked raw
		if err := stream.RecvMsg(&asked); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&raw{echoed(asked.data)}); err != nil {
			return err
		}
	}
}

func serveGrpc() {
	secret := credentials.NewTLS(configuration("server"))
	if clear {
		secret = insecure.NewCredentials()
	}
	server := grpc.NewServer(grpc.Creds(secret))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "matrix.Echo",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "One", Handler: one}},
		Streams:     []grpc.StreamDesc{{StreamName: "Many", Handler: many, ServerStreams: true, ClientStreams: true}},
	}, nil)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	must(server.Serve(listen()))
}

func callGrpc(ctx context.Context, target string, count int) {
	secret := credentials.NewTLS(configuration("client"))
	if clear {
		secret = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(secret))
	must(err)
	defer conn.Close()
	for n := 0; n < 50; n++ {
		var options []grpc.CallOption
		if n%2 == 1 {
			options = append(options, grpc.UseCompressor("gzip"))
		}
		asked, answer := raw{fmt.Appendf(nil, "message %d", n)}, raw{}
		must(conn.Invoke(ctx, "/matrix.Echo/One", &asked, &answer, options...))
		if string(answer.data) != string(echoed(asked.data)) {
			log.Fatalf("%q", answer.data)
		}
	}
	state, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	must(err)
	fmt.Println("health", state.Status)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/matrix.Echo/Many")
	must(err)
	sent := make(chan struct{})
	go func() {
		for n := 0; n < count; n++ {
			must(stream.SendMsg(&raw{fmt.Appendf(nil, "%d", n)}))
		}
		must(stream.CloseSend())
		close(sent)
	}()
	for n := 0; n < count; n++ {
		var got raw
		must(stream.RecvMsg(&got))
		if string(got.data) != fmt.Sprintf("to %d", n) {
			log.Fatalf("%q is message %d", got.data, n)
		}
	}
	if err := stream.RecvMsg(&raw{}); err != io.EOF {
		log.Fatal(err)
	}
	<-sent
	fmt.Println("messages", count)
}
