import EventLoop
import Foundation
import RPC
import ServiceSupport
import WireProtocol

/// The RPC's side of the round trips: the same two faces as `libuv-ping-pong`, over the real client and server.
enum RPCEcho {
    private static let method = Method(rawValue: 0x7F00)
    private static let secret = Array("bench".utf8)

    private final class Handler: RPCHandler {
        func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload { RPCPayload(body: call.body) }
    }

    /// Prints "port N" and echoes until standard input ends.
    static func serve() async throws {
        let loop = UVLoop()
        loop.start()
        let (server, port) = try await Task(executorPreference: loop) {
            let server = RPCServer(
                loop: loop, identity: PeerIdentity(role: "sampler", instanceID: "bench", fingerprint: "bench"),
                secret: secret, roles: ["attention"], handler: Handler())
            return (server, try server.listen(host: "127.0.0.1", port: 0))
        }.value
        ServiceProcess.announce("port \(port)")
        while readLine() != nil {}
        withExtendedLifetime(server) {}
    }

    /// For every line "BYTES COUNT" on standard input prints COUNT round trip times in nanoseconds.
    static func measure(port: Int) async throws {
        let loop = UVLoop()
        loop.start()
        let client = try await Task(executorPreference: loop) {
            let client = RPCClient(
                loop: loop, host: "127.0.0.1", port: port,
                identity: PeerIdentity(role: "attention", instanceID: "bench", fingerprint: "bench"), role: "sampler",
                fingerprint: "bench", secret: secret)
            client.start()
            try await client.waitReady(timeoutMicroseconds: 5_000_000)
            return client
        }.value
        while let line = readLine() {
            let words = line.split(separator: " ").compactMap { Int($0) }
            guard words.count == 2 else { throw BenchError("\"\(line)\" is not BYTES COUNT") }
            let times = try await Task(executorPreference: loop) {
                try await roundTrips(client, bytes: words[0], count: words[1])
            }.value
            ServiceProcess.announce(times.map(String.init).joined(separator: " "))
        }
    }

    private static func roundTrips(_ client: RPCClient, bytes: Int, count: Int) async throws -> [UInt64] {
        let body = AlignedBuffer(count: bytes)
        memset(body.pointer, 7, bytes)
        var times: [UInt64] = []
        times.reserveCapacity(count)
        for _ in 0..<count {
            let started = DispatchTime.now().uptimeNanoseconds
            let reply = try await client.call(method, RPCPayload(body: body), timeoutMicroseconds: 5_000_000)
            times.append(DispatchTime.now().uptimeNanoseconds - started)
            guard reply.body?.count == bytes else { throw BenchError("the echo came back with another size") }
        }
        return times
    }
}
