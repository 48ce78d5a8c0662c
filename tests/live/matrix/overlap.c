/*
 * overlap HOW COUNT: COUNT connections one after the other, each with one exchange (GET /overlap-HOW/NUMBER), whose
 * first calls are made by two threads at the same moment.
 *
 *   server  HTTP/2 in clear: the server writes its settings while its other thread reads the preface
 *   client  likewise: the client writes the preface while its other thread reads the server's settings
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTINGS "\0\0\0\4\0\0\0\0\0"
#define ACK "\0\0\0\4\1\0\0\0\0"
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" SETTINGS
#define ANSWER "\0\0\1\1\5\0\0\0\1\x88" /* HEADERS, :status 200, END_STREAM */

static _Atomic(int (*)(void)) task; /* of the other thread */
static int client, server;

static int all(int s, size_t n)
{
    char b[4096];
    while (n > 0) {
        ssize_t k = read(s, b, n < sizeof(b) ? n : sizeof(b));
        if (k <= 0)
            return -1;
        n -= k;
    }
    return 0;
}

static int put(int s, const char *bytes, size_t n)
{
    return write(s, bytes, n) == (ssize_t)n ? 0 : -1;
}

static int reads_preface(void)
{
    return all(server, 33);
}

static int reads_settings(void)
{
    return all(client, 9);
}

static void *other(void *unused)
{
    for (;;) {
        int (*now)(void) = atomic_load(&task);
        if (!now) {
            sched_yield();
            continue;
        }
        if (now())
            exit(4);
        atomic_store(&task, NULL);
    }
    return unused;
}

/* The write begins a little later than the read: each time a few nanoseconds more or less, so that some overlap. */
static void later(int number)
{
    for (volatile int i = 0; i < number * 37 % 8192; i++)
        ;
}

static void wait_for_other(void)
{
    while (atomic_load(&task))
        sched_yield();
}

/* HEADERS of stream 1 in `h`; how many bytes. */
static int request(char *h, const char *how, int number)
{
    memcpy(h, "\0\0\0\1\5\0\0\0\1\x82\x86\x04", 12);
    int n = 13 + sprintf(h + 13, "/overlap-%s/%05d", how, number);
    h[12] = n - 13;
    memcpy(h + n, "\x01\x01h", 3); /* :authority */
    h[2] = n + 3 - 9;
    return n + 3;
}

static int exchange(const char *how, int number)
{
    char h[128];
    if (!strcmp(how, "server")) {
        if (put(client, PREFACE, 33))
            return -1;
        atomic_store(&task, reads_preface);
        later(number);
        if (put(server, SETTINGS, 9) || all(client, 9))
            return -1;
    } else {
        if (put(server, SETTINGS, 9))
            return -1;
        atomic_store(&task, reads_settings);
        later(number);
        if (put(client, PREFACE, 33) || all(server, 33))
            return -1;
    }
    wait_for_other();
    int n = request(h, how, number);
    if (put(client, ACK, 9) || put(client, h, n) || all(server, 9 + n) || put(server, ACK, 9))
        return -1;
    return put(server, ANSWER, 10) || all(client, 19) ? -1 : 0;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    int l = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    pthread_t thread;
    if (bind(l, (void *)&a, n) || listen(l, 10) || getsockname(l, (void *)&a, &n) ||
        pthread_create(&thread, NULL, other, NULL))
        return 3;
    for (int number = 1; number <= atoi(argv[2]); number++) {
        client = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(client, (void *)&a, n))
            return 3;
        server = accept(l, NULL, NULL);
        setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (exchange(argv[1], number))
            return 5;
        close(client), close(server);
    }
    return 0;
}
