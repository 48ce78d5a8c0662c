/*
 * HTTP of the C programs of the TLS matrix. `PROGRAM server LOG` prints its port and serves until killed, a thread for
 * each connection; `PROGRAM client PORT LOG` makes the connections that standard input names, in eight threads. TLS_BED
 * is the folder with certificates and pool; `PROGRAM version` prints the library's. A program says how to speak TLS:
 */
#ifndef CONVERSATION_H
#define CONVERSATION_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct tls; /* a connection after its handshake */

static void tls_setup(bool server);
static struct tls *tls_open(int fd, bool server, unsigned number); /* NULL: no handshake */
static long tls_read(struct tls *t, char *to, size_t most);        /* 0 or less: no more */
static bool tls_write(struct tls *t, const char *from, size_t n);
static void tls_close(struct tls *t, bool abandoned);
static void sha256(const char *data, size_t n, unsigned char out[32]);
static const char *tls_version(void);

#define POOL_BYTES (7 << 20)
#define BODY_MOST (6 << 20)
#define WORKERS 8

static char *letters;
static int log_file;

static char *bed(const char *name)
{
    static __thread char path[512];
    snprintf(path, sizeof(path), "%s/%s", getenv("TLS_BED"), name);
    return path;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* A body, as exchanges.py says. */
static void content(char *to, long number, long size, bool request)
{
    char head[32];
    long length = snprintf(head, sizeof(head), "%ld.", number), start = number * 4099 + (request ? 500009 : 0);
    if (length > size)
        length = size;
    memcpy(to, head, length);
    memcpy(to + length, letters + start % 1000000, size - length);
}

static void numbers(const char *path, long *number, long *size)
{
    const char *last = strrchr(path, '/');
    const char *before = last;
    while (before > path && *--before != '/')
        ;
    *number = atol(before + 1);
    *size = atol(last + 1);
}

/* A line of the log: `key`: "method" in a server, "status" in a client; `whose`: "peer" or "local". */
static void note(long number, const char *key, const char *value, const char *body, size_t n, const char *whose,
                 const char *address)
{
    unsigned char sum[32];
    char hex[65], line[512];
    sha256(body, n, sum);
    for (int i = 0; i < 32; i++)
        sprintf(hex + 2 * i, "%02x", sum[i]);
    int length = snprintf(line, sizeof(line),
                          "{\"number\": %ld, \"%s\": %s, \"bytes\": %zu, \"sha256\": \"%s\", \"%s\": \"%s\"}\n", number,
                          key, value, n, hex, whose, address);
    if (write(log_file, line, length) != length)
        fail("log");
}

static void address_of(int fd, bool peer, char out[32])
{
    struct sockaddr_in a;
    socklen_t size = sizeof(a);
    if (peer ? getpeername(fd, (struct sockaddr *)&a, &size) : getsockname(fd, (struct sockaddr *)&a, &size))
        a.sin_port = 0;
    snprintf(out, 32, "127.0.0.1:%d", ntohs(a.sin_port));
}

/* Bytes that were read and not yet taken; no more than `piece` are asked for at a time. */
struct reader {
    struct tls *t;
    size_t piece, at, end;
    char data[65536];
};

static bool more(struct reader *r)
{
    if (r->at == r->end)
        r->at = r->end = 0;
    size_t room = sizeof(r->data) - r->end;
    long n = tls_read(r->t, r->data + r->end, room < r->piece ? room : r->piece);
    if (n <= 0)
        return false;
    r->end += n;
    return true;
}

/* The next line without its end; false at the end of the connection. */
static bool line(struct reader *r, char *out, size_t most)
{
    size_t n = 0;
    for (;;) {
        if (r->at == r->end && !more(r))
            return false;
        char c = r->data[r->at++];
        if (c == '\n')
            break;
        if (c != '\r' && n + 1 < most)
            out[n++] = c;
    }
    out[n] = 0;
    return true;
}

struct message {
    char start[1024]; /* request line or status line */
    long length;      /* of the body; -1: chunked */
    bool expects;     /* 100-continue */
};

static bool head(struct reader *r, struct message *m)
{
    char field[4096];
    if (!line(r, m->start, sizeof(m->start)))
        return false;
    m->length = 0;
    m->expects = false;
    while (line(r, field, sizeof(field))) {
        if (!field[0])
            return true;
        if (!strncasecmp(field, "content-length:", 15))
            m->length = atol(field + 15);
        else if (!strncasecmp(field, "transfer-encoding:", 18))
            m->length = -1;
        else if (!strncasecmp(field, "expect:", 7))
            m->expects = true;
    }
    return false;
}

/* `n` bytes to `to`, of which *have are there; no more than `enough` in all. False: the connection ended. */
static bool take(struct reader *r, char *to, size_t *have, size_t n, size_t enough)
{
    while (n && *have < enough) {
        if (r->at == r->end && !more(r))
            return false;
        size_t part = r->end - r->at < n ? r->end - r->at : n;
        memcpy(to + *have, r->data + r->at, part);
        r->at += part;
        *have += part;
        n -= part;
    }
    return true;
}

static bool body(struct reader *r, const struct message *m, char *to, size_t *have, size_t enough)
{
    char size[64];
    if (m->length >= 0)
        return m->length <= BODY_MOST && take(r, to, have, m->length, enough);
    while (line(r, size, sizeof(size))) {
        size_t n = strtoul(size, NULL, 16);
        if (n > BODY_MOST - *have || !take(r, to, have, n, enough))
            return false;
        if (*have >= enough)
            return true;
        if (!line(r, size, sizeof(size)))
            return false;
        if (!n)
            return true;
    }
    return false;
}

static bool answer(struct tls *t, long number, long size, char *text)
{
    bool chunked = number % 4 == 3;
    char head[256], frame[32], coding[64] = "Transfer-Encoding: chunked";
    if (!chunked)
        snprintf(coding, sizeof(coding), "Content-Length: %ld", size);
    int length = snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nContent-Type: text/plain\r\n%s\r\n\r\n",
                          number % 7 ? "200 OK" : "201 Created", coding);
    content(text, number, size, false);
    if (!tls_write(t, head, length))
        return false;
    if (!chunked)
        return !size || tls_write(t, text, size);
    for (long at = 0; at < size; at += 16000) {
        long part = size - at < 16000 ? size - at : 16000;
        if (!tls_write(t, frame, sprintf(frame, "%lx\r\n", part)) || !tls_write(t, text + at, part) ||
            !tls_write(t, "\r\n", 2))
            return false;
    }
    return tls_write(t, "0\r\n\r\n", 5);
}

struct accepted {
    int fd;
    unsigned number;
};

static void *serve(void *argument)
{
    struct accepted *mine = argument;
    struct reader *r = calloc(1, sizeof(*r));
    char *text = malloc(BODY_MOST), peer[32];
    address_of(mine->fd, true, peer);
    r->piece = sizeof(r->data);
    r->t = tls_open(mine->fd, true, mine->number);
    struct message m;
    while (r->t && head(r, &m)) {
        char method[16], quoted[24], path[512];
        size_t have = 0;
        long number, size;
        if (sscanf(m.start, "%15s %511s", method, path) != 2)
            break;
        if (m.expects && !tls_write(r->t, "HTTP/1.1 100 Continue\r\n\r\n", 25))
            break;
        if (!body(r, &m, text, &have, SIZE_MAX))
            break;
        numbers(path, &number, &size);
        snprintf(quoted, sizeof(quoted), "\"%s\"", method);
        note(number, "method", quoted, text, have, "peer", peer);
        if (size > BODY_MOST || !answer(r->t, number, size, text))
            break;
    }
    if (r->t)
        tls_close(r->t, false);
    close(mine->fd);
    free(text);
    free(r);
    free(mine);
    return NULL;
}

static void server(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(a);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (bind(listener, (struct sockaddr *)&a, size) || listen(listener, 512) ||
        getsockname(listener, (struct sockaddr *)&a, &size))
        fail("listen");
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    for (unsigned number = 0;; number++) {
        struct accepted *next = malloc(sizeof(*next));
        pthread_t thread;
        *next = (struct accepted){.fd = accept(listener, NULL, NULL), .number = number};
        if (next->fd < 0)
            fail("accept");
        setsockopt(next->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (pthread_create(&thread, NULL, serve, next))
            fail("pthread_create");
        pthread_detach(thread);
    }
}

static void request(struct tls *t, const char *method, const char *path, long number, long size, char *text)
{
    char head[768], length[80] = "";
    if (size)
        snprintf(length, sizeof(length), "Content-Type: text/plain\r\nContent-Length: %ld\r\n", size);
    int n = snprintf(head, sizeof(head), "%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", method, path, length);
    content(text, number, size, true);
    if (!tls_write(t, head, n) || (size && !tls_write(t, text, size)))
        fail("request");
}

static void exchange(struct reader *r, const char *reading, const char *word, char *text, const char *local)
{
    char method[16], path[512], status[4] = "0";
    long bytes, number, size;
    size_t have = 0;
    struct message m;
    if (sscanf(word, "%15[^,],%511[^,],%ld", method, path, &bytes) != 3)
        fail(word);
    numbers(path, &number, &size);
    request(r->t, method, path, number, bytes, text);
    if (!head(r, &m))
        fail("answer");
    memcpy(status, m.start + 9, 3);
    if (!strcmp(reading, "stalled") && size > 1 << 20)
        nanosleep(&(struct timespec){.tv_nsec = 400000000}, NULL);
    r->piece = strcmp(reading, "partial") ? sizeof(r->data) : 7;
    if (!body(r, &m, text, &have, strcmp(reading, "abandoned") ? SIZE_MAX : 100000))
        fail("body");
    note(number, "status", status, text, have, "local", local);
}

static void converse(char *words, int port, char *text, unsigned number)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    char local[32], *rest, *reading = strtok_r(words, " \n", &rest), *word = strtok_r(NULL, " \n", &rest);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    address_of(fd, false, local);
    struct reader *r = calloc(1, sizeof(*r));
    r->t = tls_open(fd, false, number);
    if (!r->t)
        fail("handshake");
    bool abandoned = !strcmp(reading, "abandoned");
    while (word) {
        char *next = strtok_r(NULL, " \n", &rest);
        r->piece = sizeof(r->data);
        exchange(r, abandoned && next ? "whole" : reading, word, text, local);
        word = next;
    }
    tls_close(r->t, abandoned);
    close(fd);
    free(r);
}

static void *work(void *port)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static unsigned count;
    char *text = malloc(BODY_MOST), *words = NULL;
    size_t room = 0;
    for (;;) {
        pthread_mutex_lock(&lock);
        bool got = getline(&words, &room, stdin) > 0;
        unsigned number = count++;
        pthread_mutex_unlock(&lock);
        if (!got)
            break;
        converse(words, *(int *)port, text, number);
    }
    free(text);
    free(words);
    return NULL;
}

static void client(int port)
{
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        if (pthread_create(&threads[i], NULL, work, &port))
            fail("pthread_create");
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "version"))
        return puts(tls_version()) < 0;
    bool serving = argc == 3 && !strcmp(argv[1], "server");
    if (!serving && (argc != 4 || strcmp(argv[1], "client")))
        return 64;
    signal(SIGPIPE, SIG_IGN);
    FILE *pool = fopen(bed("pool"), "r");
    letters = malloc(POOL_BYTES);
    if (!pool || fread(letters, 1, POOL_BYTES, pool) != POOL_BYTES)
        fail("pool");
    log_file = open(argv[argc - 1], O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (log_file < 0)
        fail("log");
    tls_setup(serving);
    if (serving)
        server();
    else
        client(atoi(argv[2]));
    return 0;
}

#endif
