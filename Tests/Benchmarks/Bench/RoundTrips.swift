import Foundation

/// Round trips over loopback: the RPC against bare libuv and gRPC, each a server and a client process, taking turns.
struct RoundTrips: Encodable {
    struct Contestant: Encodable {
        let name: String
        let medianMicroseconds: Double
        let p99Microseconds: Double
        /// Median over the median of bare libuv.
        let ratioToLibuv: Double
    }

    struct Size: Encodable {
        let bytes: Int
        let contestants: [Contestant]
    }

    let sizes: [Size]
    let note: String?

    private struct Runner {
        let name: String
        let server: PeerProcess
        let client: PeerProcess

        init(_ name: String, _ executable: URL, _ prefix: String = "") throws {
            self.name = name
            server = try PeerProcess(executable, [prefix + "server"])
            client = try PeerProcess(executable, [prefix + "client", "\(try server.readPort())"])
        }

        func times(bytes: Int, count: Int) throws -> [Double] {
            client.write("\(bytes) \(count)")
            return try client.readLine().split(separator: " ").compactMap { Double($0) }
        }
    }

    static func measure(rounds: Int, grpc: URL, _ progress: Progress) throws -> RoundTrips {
        var runners = [
            try Runner("libuv", Executables.named("libuv-ping-pong")),
            try Runner("ironling", Executables.named("ironling-bench"), "rpc-"),
        ]
        var note: String?
        if FileManager.default.isExecutableFile(atPath: grpc.path) {
            runners.append(try Runner("gRPC C++", grpc))
        } else {
            note = "gRPC is left out: libgrpc++-dev, libprotobuf-dev and protobuf-compiler-grpc are not all installed"
        }
        defer { for runner in runners { [runner.client, runner.server].forEach { $0.stop() } } }
        let sizes = [64, 4096, 65_536]
        var samples: [[Samples]] = sizes.map { _ in runners.map { _ in Samples() } }
        for round in 0...rounds {
            progress("round trips: " + (round == 0 ? "warming up" : "round \(round) of \(rounds)"))
            for (s, bytes) in sizes.enumerated() {
                for (r, runner) in runners.enumerated() {
                    let times = try runner.times(bytes: bytes, count: 500)
                    if round > 0 { samples[s][r].values += times }
                }
            }
        }
        let results = sizes.indices.map { s in
            Size(
                bytes: sizes[s],
                contestants: runners.indices.map { r in
                    Contestant(
                        name: runners[r].name, medianMicroseconds: samples[s][r].median / 1000,
                        p99Microseconds: samples[s][r].percentile(0.99) / 1000,
                        ratioToLibuv: samples[s][r].median / samples[s][0].median)
                })
        }
        return RoundTrips(sizes: results, note: note)
    }
}
