// The floor the RPC is held against: libuv, TCP_NODELAY, bytes sent back as they come, and nothing else.
//
//   libuv-ping-pong server         prints "port N" and echoes until standard input ends
//   libuv-ping-pong client PORT    for every line "BYTES COUNT" on standard input makes COUNT round trips and prints
//                                  their nanoseconds on one line
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static char read_buffer[1 << 16];

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(read_buffer, sizeof read_buffer);
}

static void fail(const char *what, int status) {
    fprintf(stderr, "libuv-ping-pong: %s: %s\n", what, uv_strerror(status));
    exit(1);
}

// MARK: server

typedef struct {
    uv_write_t request;
    char bytes[];
} Echo;

static void echo_written(uv_write_t *request, int status) {
    (void)status;
    free(request);
}

static void close_peer(uv_handle_t *peer) { free(peer); }

static void echo_read(uv_stream_t *peer, ssize_t count, const uv_buf_t *buffer) {
    if (count < 0) {
        uv_close((uv_handle_t *)peer, close_peer);
        return;
    }
    uv_buf_t reply = uv_buf_init(buffer->base, (unsigned)count);
    int written = uv_try_write(peer, &reply, 1);
    size_t rest = (size_t)count - (written > 0 ? (size_t)written : 0);
    if (rest == 0) return;
    Echo *echo = malloc(sizeof *echo + rest);
    if (!echo) exit(1);
    memcpy(echo->bytes, buffer->base + (size_t)count - rest, rest);
    reply = uv_buf_init(echo->bytes, (unsigned)rest);
    uv_write(&echo->request, peer, &reply, 1, echo_written);
}

static void accepted(uv_stream_t *listener, int status) {
    uv_tcp_t *peer = malloc(sizeof *peer);
    if (status < 0 || !peer) exit(1);
    uv_tcp_init(listener->loop, peer);
    uv_accept(listener, (uv_stream_t *)peer);
    uv_tcp_nodelay(peer, 1);
    uv_read_start((uv_stream_t *)peer, give_buffer, echo_read);
}

static void input_read(uv_stream_t *input, ssize_t count, const uv_buf_t *buffer) {
    (void)input;
    (void)buffer;
    if (count < 0) exit(0);
}

static int serve(void) {
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t listener;
    uv_pipe_t input;
    struct sockaddr_in address;
    int length = sizeof address;
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(loop, &listener);
    int status = uv_tcp_bind(&listener, (const struct sockaddr *)&address, 0);
    if (status == 0) status = uv_listen((uv_stream_t *)&listener, 16, accepted);
    if (status == 0) status = uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &length);
    if (status != 0) fail("listen", status);
    printf("port %d\n", (address.sin_port & 0xFF) << 8 | address.sin_port >> 8);
    fflush(stdout);
    uv_pipe_init(loop, &input, 0);
    if (uv_pipe_open(&input, 0) == 0) uv_read_start((uv_stream_t *)&input, give_buffer, input_read);
    return uv_run(loop, UV_RUN_DEFAULT);
}

// MARK: client

static uv_tcp_t connection;
static char payload[1 << 20];
static size_t size, received;
static int left;
static uint64_t started;

static void ping(void) {
    received = 0;
    started = uv_hrtime();
    uv_buf_t bytes = uv_buf_init(payload, (unsigned)size);
    int written = uv_try_write((uv_stream_t *)&connection, &bytes, 1);
    size_t rest = size - (written > 0 ? (size_t)written : 0);
    if (rest == 0) return;
    Echo *echo = malloc(sizeof *echo + rest);
    if (!echo) exit(1);
    memcpy(echo->bytes, payload + size - rest, rest);
    bytes = uv_buf_init(echo->bytes, (unsigned)rest);
    uv_write(&echo->request, (uv_stream_t *)&connection, &bytes, 1, echo_written);
}

static void reply_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer) {
    (void)buffer;
    if (count < 0) fail("read", (int)count);
    received += (size_t)count;
    if (received < size) return;
    printf("%llu ", (unsigned long long)(uv_hrtime() - started));
    if (--left > 0)
        ping();
    else
        uv_stop(stream->loop);
}

static void connected(uv_connect_t *request, int status) {
    if (status != 0) fail("connect", status);
    uv_tcp_nodelay(&connection, 1);
    uv_read_start(request->handle, give_buffer, reply_read);
    uv_stop(request->handle->loop);
}

static int measure(int port) {
    uv_loop_t *loop = uv_default_loop();
    uv_connect_t request;
    struct sockaddr_in address;
    uv_ip4_addr("127.0.0.1", port, &address);
    uv_tcp_init(loop, &connection);
    int status = uv_tcp_connect(&request, &connection, (const struct sockaddr *)&address, connected);
    if (status != 0) fail("connect", status);
    uv_run(loop, UV_RUN_DEFAULT);
    while (scanf("%zu %d", &size, &left) == 2 && size > 0 && size <= sizeof payload && left > 0) {
        ping();
        uv_run(loop, UV_RUN_DEFAULT);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}

int main(int count, char **arguments) {
    if (count == 2 && strcmp(arguments[1], "server") == 0) return serve();
    if (count == 3 && strcmp(arguments[1], "client") == 0) return measure(atoi(arguments[2]));
    fprintf(stderr, "usage: libuv-ping-pong server | client PORT\n");
    return 64;
}
