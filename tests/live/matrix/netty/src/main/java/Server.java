import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.CompositeByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.epoll.EpollEventLoopGroup;
import io.netty.channel.epoll.EpollServerSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.DefaultHttpContent;
import io.netty.handler.codec.http.DefaultHttpResponse;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponse;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http.LastHttpContent;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Netty with the epoll transport. Answers are made of many small buffers: those to GET are one buffer composed of them,
 * those to POST are a chunk for each. Both are written at once, so by writev. Prints its port.
 */
public final class Server extends SimpleChannelInboundHandler<FullHttpRequest> {
    private static final int PIECE = 250;
    private final String process;

    private Server(String process) {
        this.process = process;
    }

    private static byte[] text(String number, int size) {
        String unit = number + ".";
        return unit.repeat(size / unit.length() + 1).substring(0, size).getBytes(StandardCharsets.US_ASCII);
    }

    private void describe(HttpResponse response) {
        response.headers().set("Content-Type", "text/plain").set("X-Process", process);
    }

    @Override
    protected void channelRead0(ChannelHandlerContext context, FullHttpRequest request) {
        String[] parts = request.uri().split("/");
        byte[] body = text(parts[parts.length - 2], Integer.parseInt(parts[parts.length - 1]));
        if (request.method().equals(HttpMethod.POST)) {
            chunked(context, body);
        } else {
            composed(context, body);
        }
    }

    private void composed(ChannelHandlerContext context, byte[] body) {
        CompositeByteBuf all = Unpooled.compositeBuffer(Integer.MAX_VALUE);
        for (int at = 0; at < body.length; at += PIECE) {
            all.addComponent(true, direct(body, at));
        }
        DefaultFullHttpResponse response = new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.OK, all);
        describe(response);
        response.headers().set("Content-Length", body.length);
        context.writeAndFlush(response);
    }

    private void chunked(ChannelHandlerContext context, byte[] body) {
        DefaultHttpResponse response = new DefaultHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.OK);
        describe(response);
        response.headers().set("Transfer-Encoding", "chunked");
        context.write(response);
        for (int at = 0; at < body.length; at += PIECE) {
            context.write(new DefaultHttpContent(direct(body, at)));
        }
        context.writeAndFlush(LastHttpContent.EMPTY_LAST_CONTENT);
    }

    private static ByteBuf direct(byte[] body, int at) {
        int length = Math.min(PIECE, body.length - at);
        return Unpooled.directBuffer(length).writeBytes(body, at, length);
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
        context.close();
    }

    public static void main(String[] arguments) throws Exception {
        String name = Files.readString(Path.of("/proc/self/comm")).trim();
        String process = ProcessHandle.current().pid() + " " + name;
        EventLoopGroup group = new EpollEventLoopGroup(2);
        ChannelInitializer<Channel> pipeline = new ChannelInitializer<>() {
            @Override
            protected void initChannel(Channel channel) {
                channel.pipeline().addLast(new HttpServerCodec(), new HttpObjectAggregator(1 << 20), new Server(process));
            }
        };
        Channel channel = new ServerBootstrap().group(group).channel(EpollServerSocketChannel.class)
            .option(ChannelOption.SO_BACKLOG, 512).childHandler(pipeline).bind("127.0.0.1", 0).sync().channel();
        System.out.println(((InetSocketAddress) channel.localAddress()).getPort());
        channel.closeFuture().sync();
    }
}
