/* A library as a TLS library is one to the collector: plain bytes go in and out of an object, other bytes through the
 * socket. Its "cipher" turns every bit round. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct demo {
    int fd;   /* what the object says of its socket: -1 as long as it has not been told */
    int role; /* enum event_role of bpf/abi/event.h */
    int wire; /* the socket; -1: its bytes are in memory */
    size_t fill;
    unsigned char memory[65536];
};

#define EXPORTED __attribute__((visibility("default"), noinline))

EXPORTED struct demo *demo_new(int role, int wire)
{
    struct demo *d = calloc(1, sizeof(*d));
    if (d) {
        d->fd = -1;
        d->role = role;
        d->wire = wire;
    }
    return d;
}

EXPORTED void demo_bind(struct demo *d, int fd)
{
    d->fd = fd;
}

/* As demo_bind, and the object does not say so. */
EXPORTED void demo_tell(struct demo *d, int fd)
{
    __asm__ volatile("" : : "r"(d), "r"(fd));
}

/* What the other side has sent, where there is no socket. */
EXPORTED void demo_feed(struct demo *d, const void *data, size_t n)
{
    memcpy(d->memory, data, n);
    d->fill = n;
}

EXPORTED ssize_t demo_read(struct demo *d, void *data, size_t n)
{
    if (d->wire < 0) {
        if (n > d->fill)
            n = d->fill;
        memcpy(data, d->memory, n);
        memmove(d->memory, d->memory + n, d->fill - n);
        d->fill -= n;
        return n;
    }
    ssize_t got = read(d->wire, data, n);
    for (ssize_t i = 0; i < got; i++)
        ((unsigned char *)data)[i] ^= 0xff;
    return got;
}

EXPORTED ssize_t demo_write(struct demo *d, const void *data, size_t n)
{
    if (d->wire < 0)
        return n;
    unsigned char *turned = malloc(n);
    for (size_t i = 0; i < n; i++)
        turned[i] = ((const unsigned char *)data)[i] ^ 0xff;
    ssize_t put = write(d->wire, turned, n);
    free(turned);
    return put;
}

EXPORTED void demo_free(struct demo *d)
{
    free(d);
}
