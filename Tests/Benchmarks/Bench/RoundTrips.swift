import Foundation

/// Round trips over loopback: the RPC against bare libuv and gRPC, each a server and a client process, taking turns.
///
/// Client and server of every contestant are held on the same processor, and then on two. Left free, the system puts one
/// pair on one processor and the next on two, where waking the other side alone takes several times as long.
struct RoundTrips: Encodable {
    struct Contestant: Encodable {
        let name: String
        let medianMicroseconds: Double
        let p99Microseconds: Double
        /// Median over the median of bare libuv.
        let ratioToLibuv: Double
    }

    struct Size: Encodable {
        let processors: Int
        let bytes: Int
        let contestants: [Contestant]
    }

    let sizes: [Size]
    let note: String?

    private struct Runner {
        let name: String
        let server: PeerProcess
        let client: PeerProcess

        init(_ name: String, _ executable: URL, prefix: String = "", _ processors: (Int, Int)) throws {
            self.name = name
            server = try PeerProcess(executable, [prefix + "server"], processor: processors.0)
            client = try PeerProcess(
                executable, [prefix + "client", "\(try server.readPort())"], processor: processors.1)
        }

        func times(bytes: Int, count: Int) throws -> [Double] {
            client.write("\(bytes) \(count)")
            return try client.readLine().split(separator: " ").compactMap { Double($0) }
        }
    }

    static func measure(rounds: Int, grpc: URL, _ progress: Progress) throws -> RoundTrips {
        let hasGRPC = FileManager.default.isExecutableFile(atPath: grpc.path)
        let note = "gRPC is left out: libgrpc++-dev, libprotobuf-dev and protobuf-compiler-grpc are not all installed"
        var results: [Size] = []
        for processors in ProcessInfo.processInfo.activeProcessorCount > 1 ? [(0, 0), (0, 1)] : [(0, 0)] {
            results += try measure(rounds: rounds, grpc: hasGRPC ? grpc : nil, processors, progress)
        }
        return RoundTrips(sizes: results, note: hasGRPC ? nil : note)
    }

    private static func measure(
        rounds: Int, grpc: URL?, _ processors: (Int, Int), _ progress: Progress
    ) throws -> [Size] {
        var runners = [
            try Runner("libuv", Executables.named("libuv-ping-pong"), processors),
            try Runner("ironling", Executables.named("ironling-bench"), prefix: "rpc-", processors),
        ]
        if let grpc { runners.append(try Runner("gRPC C++", grpc, processors)) }
        let used = processors.0 == processors.1 ? 1 : 2
        defer { for runner in runners { [runner.client, runner.server].forEach { $0.stop() } } }
        let sizes = [64, 4096, 65_536]
        var samples: [[Samples]] = sizes.map { _ in runners.map { _ in Samples() } }
        for round in 0...rounds {
            progress(
                "round trips on \(used) of the processors: "
                    + (round == 0 ? "warming up" : "round \(round) of \(rounds)"))
            for (s, bytes) in sizes.enumerated() {
                for (r, runner) in runners.enumerated() {
                    let times = try runner.times(bytes: bytes, count: 500)
                    if round > 0 { samples[s][r].values += times }
                }
            }
        }
        return sizes.indices.map { s in
            Size(
                processors: used, bytes: sizes[s],
                contestants: runners.indices.map { r in
                    Contestant(
                        name: runners[r].name, medianMicroseconds: samples[s][r].median / 1000,
                        p99Microseconds: samples[s][r].percentile(0.99) / 1000,
                        ratioToLibuv: samples[s][r].median / samples[s][0].median)
                })
        }
    }
}
