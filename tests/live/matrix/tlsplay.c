/*
 * The ways in which programs use OpenSSL, one scenario each: a client and a server in two threads of one process, over
 * a TCP connection of their own, HTTP/1.1 with Content-Length inside.
 *
 *     tlsplay CERTIFICATE KEY SCENARIO
 *
 * Waits for a line on standard input before it begins (and, in `memory` and `joined`, for another later). Prints
 * one line an exchange: path, bytes of the answer, port of the client.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what)                                                                      \
    do {                                                                                 \
        if (!(what)) {                                                                   \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #what, errno); \
            ERR_print_errors_fp(stderr);                                                 \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)

static const char *scenario, *certificate, *key;
static SSL_CTX *server_context, *client_context;
static int listener;
static struct sockaddr_in address;
static int exchanges_made;

static bool is(const char *name)
{
    return !strcmp(scenario, name);
}

/* ---- reading and writing, in the way of the scenario ---- */

static int wait_on(SSL *ssl, int ret)
{
    int why = SSL_get_error(ssl, ret);
    struct pollfd p = {.fd = SSL_get_fd(ssl)};
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        return -1;
    p.events = why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    poll(&p, 1, -1);
    return 0;
}

static int read_some(SSL *ssl, char *buffer, int n)
{
    if (is("peek")) {
        char look[64];
        CHECK(SSL_peek(ssl, look, sizeof(look)) > 0);
    }
    for (;;) {
        int ret;
        if (is("ex")) {
            size_t done = 0;
            ret = SSL_read_ex(ssl, buffer, n, &done);
            if (ret == 1)
                return (int)done;
        } else {
            ret = SSL_read(ssl, buffer, n);
            if (ret > 0)
                return ret;
        }
        if (wait_on(ssl, ret))
            return 0;
    }
}

static void write_all(SSL *ssl, const char *bytes, size_t n)
{
    while (n) {
        int ret;
        size_t done = 0;
        if (is("ex")) {
            ret = SSL_write_ex(ssl, bytes, n, &done);
        } else {
            ret = SSL_write(ssl, bytes, (int)n);
            done = ret > 0 ? (size_t)ret : 0;
        }
        if (ret <= 0) {
            CHECK(!wait_on(ssl, ret));
            continue;
        }
        bytes += done;
        n -= done;
    }
}

/* ---- HTTP ---- */

/* Reads a message with its body; the bytes of the body. `first`: what was read already. */
static int read_message(SSL *ssl, char *path, const char *first)
{
    static __thread char head[1 << 16];
    int n = 0, length = 0;
    char *end;
    if (first)
        n = snprintf(head, sizeof(head), "%s", first);
    head[n] = 0;
    while (!(end = strstr(head, "\r\n\r\n"))) {
        int got = read_some(ssl, head + n, is("peek") ? 16 : 4096);
        if (!got)
            return -1;
        n += got;
        head[n] = 0;
    }
    char *field = strstr(head, "Content-Length: ");
    if (field)
        length = atoi(field + 16);
    if (path)
        sscanf(head, "%*s %63s", path);
    int left = length - (int)(head + n - end - 4);
    while (left > 0) {
        char body[20000];
        if (is("partial"))
            usleep(2000);
        int got = read_some(ssl, body, sizeof(body));
        if (!got)
            return field ? -1 : length;
        left -= got;
    }
    return length;
}

static int answer_bytes(int number)
{
    static const int sizes[] = {0, 5, 700, 17000, 120000};
    if (is("partial"))
        return 140000;
    return sizes[number % 5];
}

static void serve_one(SSL *ssl, const char *first)
{
    char path[64] = "";
    static __thread char answer[200000];
    if (read_message(ssl, path, first) < 0)
        return;
    char *number = strrchr(path, '/');
    int bytes = answer_bytes(number ? atoi(number + 1) : 0);
    int n = snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", bytes);
    for (int i = 0; i < bytes; i++)
        answer[n + i] = 'a' + (i % 23);
    write_all(ssl, answer, n + bytes);
}

static int port_of(SSL *ssl)
{
    struct sockaddr_in a;
    socklen_t n = sizeof(a);
    int fd = SSL_get_fd(ssl);
    if (fd < 0 || getsockname(fd, (void *)&a, &n))
        return 0;
    return ntohs(a.sin_port);
}

static void ask(SSL *ssl, int number, int port)
{
    char request[256];
    int n = snprintf(request, sizeof(request), "POST /%s/%d HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
                     scenario, number);
    write_all(ssl, request, n);
    int got = read_message(ssl, NULL, NULL);
    CHECK(got == answer_bytes(number));
    printf("/%s/%d %d %d\n", scenario, number, got, port);
    exchanges_made++;
}

/* ---- connections ---- */

static SSL_CTX *context(const SSL_METHOD *method)
{
    SSL_CTX *c = SSL_CTX_new(method);
    CHECK(c);
    if (is("renegotiate")) {
        SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION);
        SSL_CTX_clear_options(c, SSL_OP_NO_RENEGOTIATION);
        SSL_CTX_set_options(c, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
    }
    if (is("partial"))
        SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (is("ktls"))
        SSL_CTX_set_options(c, SSL_OP_ENABLE_KTLS);
    if (is("early"))
        SSL_CTX_set_max_early_data(c, 16384);
    return c;
}

static int connected(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), small = 4096;
    if (is("partial"))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    CHECK(!connect(fd, (void *)&address, sizeof(address)));
    return fd;
}

static int accepted(void)
{
    int fd = accept(listener, NULL, NULL), small = 8192;
    CHECK(fd >= 0);
    if (is("partial")) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
        BIO_socket_nbio(fd, 1);
    }
    return fd;
}

static void shake(SSL *ssl, bool client)
{
    int ret;
    while ((ret = client ? SSL_connect(ssl) : SSL_accept(ssl)) != 1)
        CHECK(!wait_on(ssl, ret));
}

static void finish(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    SSL_shutdown(ssl);
    SSL_free(ssl);
    close(fd);
}

/* Bytes between an SSL object that works on memory and its socket; one of the two is what it waits for. */
static void pump(SSL *ssl, int fd, bool receive)
{
    char bytes[20000];
    int n;
    while ((n = BIO_read(SSL_get_wbio(ssl), bytes, sizeof(bytes))) > 0)
        CHECK(write(fd, bytes, n) == n);
    if (receive) {
        n = read(fd, bytes, sizeof(bytes));
        if (n > 0)
            BIO_write(SSL_get_rbio(ssl), bytes, n);
    }
}

static void memory_shake(SSL *ssl, int fd)
{
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(ssl), -1);
    BIO_set_mem_eof_return(SSL_get_wbio(ssl), -1);
    while (SSL_do_handshake(ssl) != 1)
        pump(ssl, fd, true);
    pump(ssl, fd, false);
}

static void memory_send(SSL *ssl, int fd, const char *bytes, int n)
{
    CHECK(SSL_write(ssl, bytes, n) == n);
    pump(ssl, fd, false);
}

static int memory_receive(SSL *ssl, int fd, char *bytes, int most)
{
    int n;
    while ((n = SSL_read(ssl, bytes, most)) <= 0)
        pump(ssl, fd, true);
    bytes[n] = 0;
    return n;
}

/* ---- the server's thread ---- */

static void *serve(void *nothing)
{
    int connections = is("freed") ? 40 : is("moved") || is("early") ? 2 : 1;
    SSL *kept = NULL;
    (void)nothing;
    for (int i = 0; i < connections; i++) {
        int fd = accepted();
        SSL *ssl = kept ? kept : SSL_new(server_context);
        if (is("memory")) {
            char bytes[4096];
            SSL_set_accept_state(ssl);
            memory_shake(ssl, fd);
            for (int j = 0; j < 5; j++) {
                char text[200000];
                memory_receive(ssl, fd, bytes, sizeof(bytes) - 1);
                int n = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 20 + j);
                memset(text + n, 'm', 20 + j);
                memory_send(ssl, fd, text, n + 20 + j);
            }
            SSL_free(ssl);
            close(fd);
            return NULL;
        }
        SSL_set_fd(ssl, fd);
        if (is("preamble")) {
            char line[] = "PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n";
            CHECK(read(fd, line, sizeof(line) - 1) == (ssize_t)sizeof(line) - 1);
        }
        if (is("connect")) {
            char line[512];
            CHECK(read(fd, line, sizeof(line)) > 0);
            CHECK(write(fd, "HTTP/1.1 200 OK\r\n\r\n", 19) == 19);
        }
        if (is("early")) {
            char early[4096];
            size_t n = 0, all = 0;
            int ret;
            while ((ret = SSL_read_early_data(ssl, early + all, sizeof(early) - 1 - all, &n)) !=
                   SSL_READ_EARLY_DATA_FINISH) {
                CHECK(ret != SSL_READ_EARLY_DATA_ERROR);
                all += n;
            }
            early[all] = 0;
            shake(ssl, false);
            serve_one(ssl, all ? early : NULL);
            finish(ssl);
            continue;
        }
        shake(ssl, false);
        if (is("inside")) {
            SSL *inner = SSL_new(server_context);
            BIO *bio = BIO_new(BIO_f_ssl());
            BIO_set_ssl(bio, ssl, BIO_NOCLOSE);
            SSL_set_bio(inner, bio, bio);
            shake(inner, false);
            for (int j = 0; j < 3; j++)
                serve_one(inner, NULL);
            SSL_free(inner);
            finish(ssl);
            return NULL;
        }
        if (is("fork")) {
            serve_one(ssl, NULL);
            pid_t child = fork();
            if (!child) {
                serve_one(ssl, NULL);
                serve_one(ssl, NULL);
                close(fd);
                _exit(0);
            }
            waitpid(child, NULL, 0);
            close(fd);
            return NULL;
        }
        if (is("referenced")) {
            SSL_up_ref(ssl);
            serve_one(ssl, NULL);
            SSL_free(ssl);
        }
        int count = is("freed") ? 2 : is("referenced") ? 2 : is("moved") ? 2 : 5;
        for (int j = 0; j < count; j++) {
            if (is("renegotiate") && j == 2) {
                SSL_renegotiate(ssl);
                SSL_do_handshake(ssl);
            }
            if (is("keyupdate") && j == 2)
                CHECK(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED) == 1);
            serve_one(ssl, NULL);
        }
        if (is("moved") && i == 0) {
            SSL_shutdown(ssl);
            close(fd);
            CHECK(SSL_clear(ssl) == 1);
            kept = ssl;
            continue;
        }
        finish(ssl);
    }
    return NULL;
}

/* ---- the client ---- */

static SSL_SESSION *ticket;

static int take_ticket(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    ticket = session;
    return 1;
}

/* In the middle of a call on an object, its program begins a connection with another one. */
static void begin_another(int sent, int version, int type, const void *bytes, size_t n, SSL *ssl, void *nothing)
{
    static bool begun;
    (void)version, (void)bytes, (void)n, (void)ssl, (void)nothing;
    if (!sent || type != SSL3_RT_HEADER || begun)
        return;
    begun = true;
    SSL *other = SSL_new(client_context);
    int fd = connected();
    BIO_socket_nbio(fd, 1);
    SSL_set_fd(other, fd);
    CHECK(SSL_connect(other) < 0); /* it has sent its greeting, and nobody answers */
}

static void play(void)
{
    int number = 0;
    if (is("early")) {
        SSL_CTX_set_session_cache_mode(client_context, SSL_SESS_CACHE_CLIENT);
        SSL_CTX_sess_set_new_cb(client_context, take_ticket);
    }
    if (is("freed")) {
        for (int i = 0; i < 40; i++) {
            SSL *ssl = SSL_new(client_context);
            SSL_set_fd(ssl, connected());
            shake(ssl, true);
            ask(ssl, number, port_of(ssl));
            ask(ssl, number + 1, port_of(ssl));
            number += 2;
            finish(ssl);
        }
        return;
    }
    SSL *ssl = SSL_new(client_context);
    int fd = connected();
    if (!is("memory"))
        SSL_set_fd(ssl, fd);
    if (is("memory")) {
        struct sockaddr_in a;
        socklen_t size = sizeof(a);
        getsockname(fd, (void *)&a, &size);
        SSL_set_connect_state(ssl);
        memory_shake(ssl, fd);
        for (int i = 0; i < 5; i++) {
            char text[4096];
            int n =
                snprintf(text, sizeof(text), "POST /memory/%d HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", i);
            memory_send(ssl, fd, text, n);
            memory_receive(ssl, fd, text, sizeof(text) - 1);
            printf("/memory/%d %d %d\n", i, 20 + i, ntohs(a.sin_port));
            if (i == 0)
                getchar();
        }
        SSL_free(ssl);
        close(fd);
        return;
    }
    if (is("preamble"))
        CHECK(write(fd, "PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n", 41) == 41);
    if (is("connect")) {
        char line[512];
        CHECK(write(fd, "CONNECT far:443 HTTP/1.1\r\nHost: far:443\r\n\r\n", 43) == 43);
        CHECK(read(fd, line, sizeof(line)) > 0);
    }
    shake(ssl, true);
    if (is("early")) {
        ask(ssl, 0, port_of(ssl));
        char c;
        SSL_read(ssl, &c, 1); /* the ticket comes with the end */
        finish(ssl);
        CHECK(ticket);
        ssl = SSL_new(client_context);
        SSL_set_fd(ssl, connected());
        SSL_set_session(ssl, ticket);
        size_t done = 0;
        const char *request = "POST /early/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
        CHECK(SSL_write_early_data(ssl, request, strlen(request), &done) == 1 && done == strlen(request));
        shake(ssl, true);
        int got = read_message(ssl, NULL, NULL);
        CHECK(got == answer_bytes(1));
        CHECK(SSL_get_early_data_status(ssl) == SSL_EARLY_DATA_ACCEPTED);
        printf("/early/1 %d %d\n", got, port_of(ssl));
        finish(ssl);
        return;
    }
    if (is("inside")) {
        SSL *inner = SSL_new(client_context);
        BIO *bio = BIO_new(BIO_f_ssl());
        BIO_set_ssl(bio, ssl, BIO_NOCLOSE);
        SSL_set_bio(inner, bio, bio);
        shake(inner, true);
        for (int i = 0; i < 3; i++)
            ask(inner, i, port_of(ssl));
        SSL_free(inner);
        finish(ssl);
        return;
    }
    int count = is("fork") || is("referenced") ? 3 : is("moved") ? 2 : 5;
    for (int i = 0; i < count; i++) {
        if (is("callback") && i == 2)
            SSL_set_msg_callback(ssl, begin_another);
        if (is("dup") && i == 2) {
            SSL_set_fd(ssl, dup(fd));
            close(fd);
        }
        ask(ssl, number++, port_of(ssl));
        if (is("joined") && i == 1)
            getchar();
    }
    if (is("moved")) {
        SSL_shutdown(ssl);
        close(fd);
        CHECK(SSL_clear(ssl) == 1);
        SSL_set_fd(ssl, connected());
        shake(ssl, true);
        ask(ssl, number++, port_of(ssl));
        ask(ssl, number++, port_of(ssl));
    }
    finish(ssl);
}

int main(int argc, char **argv)
{
    pthread_t thread;
    socklen_t n = sizeof(address);
    int one = 1;
    CHECK(argc == 4);
    certificate = argv[1];
    key = argv[2];
    scenario = argv[3];
    setvbuf(stdout, NULL, _IOLBF, 0);
    server_context = context(TLS_server_method());
    client_context = context(TLS_client_method());
    CHECK(SSL_CTX_use_certificate_chain_file(server_context, certificate) == 1);
    CHECK(SSL_CTX_use_PrivateKey_file(server_context, key, SSL_FILETYPE_PEM) == 1);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(!bind(listener, (void *)&address, n) && !listen(listener, 64));
    getsockname(listener, (void *)&address, &n);
    getchar();
    CHECK(!pthread_create(&thread, NULL, serve, NULL));
    play();
    pthread_join(thread, NULL);
    printf("done\n");
    return 0;
}
