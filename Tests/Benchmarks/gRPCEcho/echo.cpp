// A gRPC C++ unary echo, with the same two faces as libuv-ping-pong.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>

#include "echo.grpc.pb.h"

using ironling::bench::Echo;
using ironling::bench::Payload;

class Service final : public Echo::Service {
    grpc::Status Call(grpc::ServerContext *, const Payload *request, Payload *reply) override {
        reply->set_body(request->body());
        return grpc::Status::OK;
    }
};

static int serve() {
    Service service;
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    if (!server) return 1;
    std::cout << "port " << port << std::endl;
    while (std::cin.get() != EOF) {
    }
    return 0;
}

static int measure(const std::string &port) {
    auto channel = grpc::CreateChannel("127.0.0.1:" + port, grpc::InsecureChannelCredentials());
    auto stub = Echo::NewStub(channel);
    size_t size = 0;
    int count = 0;
    while (std::cin >> size >> count) {
        Payload request;
        request.set_body(std::string(size, 'x'));
        for (int i = 0; i < count; i++) {
            grpc::ClientContext context;
            Payload reply;
            auto started = std::chrono::steady_clock::now();
            grpc::Status status = stub->Call(&context, request, &reply);
            auto taken = std::chrono::steady_clock::now() - started;
            if (!status.ok() || reply.body().size() != size) {
                std::cerr << "grpc-echo: " << status.error_message() << std::endl;
                return 1;
            }
            std::cout << std::chrono::duration_cast<std::chrono::nanoseconds>(taken).count() << ' ';
        }
        std::cout << std::endl;
    }
    return 0;
}

int main(int count, char **arguments) {
    if (count == 2 && std::string(arguments[1]) == "server") return serve();
    if (count == 3 && std::string(arguments[1]) == "client") return measure(arguments[2]);
    std::cerr << "usage: grpc-echo server | client PORT" << std::endl;
    return 64;
}
