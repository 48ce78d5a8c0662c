/* A server that accepts, receives and sends by io_uring only. Prints its port. One thread, one ring. */
#include <liburing.h>

#include "answer.h"

enum step { ACCEPT, RECEIVE, SEND };

struct work {
    enum step step;
    int fd;
    size_t have; /* request bytes */
    char in[64 << 10];
    char *out;
    size_t length, sent; /* answer bytes */
};

static struct io_uring ring;

static struct io_uring_sqe *entry(struct work *w, enum step step)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (!sqe)
        exit(2);
    w->step = step;
    return sqe;
}

static void receive(struct work *w)
{
    struct io_uring_sqe *sqe = entry(w, RECEIVE);
    io_uring_prep_recv(sqe, w->fd, w->in + w->have, sizeof(w->in) - 1 - w->have, 0);
    io_uring_sqe_set_data(sqe, w);
}

static void send_more(struct work *w)
{
    struct io_uring_sqe *sqe = entry(w, SEND);
    io_uring_prep_send(sqe, w->fd, w->out + w->sent, w->length - w->sent, MSG_NOSIGNAL);
    io_uring_sqe_set_data(sqe, w);
}

static void await_connection(struct work *w)
{
    struct io_uring_sqe *sqe = entry(w, ACCEPT);
    io_uring_prep_accept(sqe, w->fd, NULL, NULL, 0);
    io_uring_sqe_set_data(sqe, w);
}

static void finish(struct work *w)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (!sqe)
        exit(2);
    io_uring_prep_close(sqe, w->fd);
    io_uring_sqe_set_data(sqe, NULL);
    free(w->out);
    free(w);
}

static void advance(struct work *w, int result)
{
    if (w->step == ACCEPT) {
        if (result >= 0) {
            struct work *c = calloc(1, sizeof(*c));
            if (!c)
                exit(2);
            c->fd = result;
            receive(c);
        }
        await_connection(w);
        return;
    }
    if (result <= 0) {
        finish(w);
        return;
    }
    if (w->step == RECEIVE) {
        w->have += result;
        w->in[w->have] = 0;
        if (!whole_request(w->in, w->have)) {
            receive(w);
            return;
        }
        free(w->out);
        w->out = make_answer(w->in, &w->length);
        w->have = w->sent = 0;
        send_more(w);
        return;
    }
    w->sent += result;
    if (w->sent < w->length)
        send_more(w);
    else
        receive(w);
}

int main(void)
{
    static struct work listener;
    struct io_uring_cqe *cqe;
    listener.fd = listen_and_print();
    if (io_uring_queue_init(1024, &ring, 0) < 0) {
        perror("io_uring");
        return 1;
    }
    await_connection(&listener);
    for (;;) {
        io_uring_submit_and_wait(&ring, 1);
        while (io_uring_peek_cqe(&ring, &cqe) == 0) {
            struct work *w = io_uring_cqe_get_data(cqe);
            int result = cqe->res;
            io_uring_cqe_seen(&ring, cqe);
            if (w)
                advance(w, result);
        }
    }
}
