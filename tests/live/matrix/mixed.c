/* A server that accepts and reads by system calls, and writes every second answer by io_uring. Prints its port.
 * A thread for each connection, with a ring of its own. */
#include <liburing.h>
#include <pthread.h>

#include "answer.h"

static int by_call(int fd, const char *data, size_t n)
{
    while (n) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return 0;
        data += sent;
        n -= sent;
    }
    return 1;
}

static int by_ring(struct io_uring *ring, int fd, const char *data, size_t n)
{
    while (n) {
        struct io_uring_cqe *cqe;
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        io_uring_prep_send(sqe, fd, data, n, MSG_NOSIGNAL);
        if (io_uring_submit(ring) < 0 || io_uring_wait_cqe(ring, &cqe))
            return 0;
        int sent = cqe->res;
        io_uring_cqe_seen(ring, cqe);
        if (sent <= 0)
            return 0;
        data += sent;
        n -= sent;
    }
    return 1;
}

static void *serve(void *argument)
{
    static const size_t room = 64 << 10;
    int fd = (int)(long)argument, going = 1;
    char *in = malloc(room);
    struct io_uring ring;
    if (!in || io_uring_queue_init(8, &ring, 0) < 0)
        exit(2);
    for (unsigned count = 0; going; count++) {
        size_t have = 0, length;
        in[0] = 0;
        while (going && !whole_request(in, have)) {
            ssize_t got = read(fd, in + have, room - 1 - have);
            going = got > 0;
            have += going ? got : 0;
            in[have] = 0;
        }
        if (!going)
            break;
        char *answer = make_answer(in, &length);
        going = count % 2 ? by_ring(&ring, fd, answer, length) : by_call(fd, answer, length);
        free(answer);
    }
    io_uring_queue_exit(&ring);
    close(fd);
    free(in);
    return NULL;
}

int main(void)
{
    int listener = listen_and_print();
    for (;;) {
        pthread_t thread;
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && pthread_create(&thread, NULL, serve, (void *)(long)fd) == 0)
            pthread_detach(thread);
    }
}
