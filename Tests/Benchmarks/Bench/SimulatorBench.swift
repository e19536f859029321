import Foundation
import FusedMoE
import RandomNumbers
import TPU

/// What simulating costs: single calls of both kernels, and beside the real calls of the experts service.
struct SimulatorSpeed: Encodable {
    struct Call: Encodable {
        let name: String
        let events: Int
        let milliseconds: Double
        let simulatedMilliseconds: Double
        /// Time of an event over that of taking one from a bare heap and putting one back.
        let eventOverHeap: Double
        let peakMebibytes: Double
    }

    /// Decoding through the services, with and without simulated times.
    struct Service: Encodable {
        let model: String
        let stepMillisecondsWithout: Double
        let stepMillisecondsWith: Double
        /// Median over the rounds of with / without.
        let ratio: Double
        /// Simulating beside serving over the time of the real experts calls.
        let simulatingShare: Double
    }

    let heapNanoseconds: Double
    let calls: [Call]
    var service: Service?
}

/// Runs the published calls shape-only.
struct SimulatorBench {
    private static let rounds = 7

    func run(_ progress: Progress) throws -> SimulatorSpeed {
        let heap = Self.heapNanoseconds()
        var calls: [SimulatorSpeed.Call] = []
        for (kernel, tokens) in [(KernelVersion.v2, 16384), (.v1, 16384), (.v2, 512), (.v1, 512)] {
            progress("simulating \(kernel.rawValue) with \(tokens) tokens")
            let problem = MoEProblem(
                shape: .ling1T, tokens: tokens, devices: 32,
                quantization: kernel == .v1 ? .weightsOnly : .publishedFloat8)
            let call = try KernelCall(kernel: kernel, problem: problem, topology: SliceTopology(named: "v7x-16"))
            calls.append(try measure(call, heap))
        }
        return SimulatorSpeed(heapNanoseconds: heap, calls: calls)
    }

    private func measure(_ call: KernelCall, _ heap: Double) throws -> SimulatorSpeed.Call {
        var times = Samples()
        var (events, latency) = (0, Picoseconds(0))
        Self.forgetPeak()
        for _ in 0..<Self.rounds {
            let started = seconds()
            let run = try call.run()
            times.values.append(1e3 * (seconds() - started))
            (events, latency) = (run.result.eventCount, run.latency)
        }
        return SimulatorSpeed.Call(
            name: "\(call.kernel.rawValue), \(call.problem.tokens) tokens, \(call.problem.devices) devices",
            events: events, milliseconds: times.median, simulatedMilliseconds: Double(latency) * 1e-9,
            eventOverHeap: times.median * 1e6 / Double(max(1, events)) / heap, peakMebibytes: Self.peakMebibytes())
    }

    /// The yardstick: taking the earliest of 4,096 times from a binary heap and putting a later one back.
    private static func heapNanoseconds() -> Double {
        let (depth, turns) = (4096, 1_000_000)
        var random = SplitMix64(seed: 7)
        var heap = (0..<depth).map { UInt64($0) << 20 }
        var samples = Samples()
        for _ in 0..<5 {
            let started = seconds()
            for _ in 0..<turns {
                let next = heap[0] &+ random.next() >> 32
                var position = 0
                while 2 * position + 1 < depth {
                    var child = 2 * position + 1
                    if child + 1 < depth, heap[child + 1] < heap[child] { child += 1 }
                    guard heap[child] < next else { break }
                    heap[position] = heap[child]
                    position = child
                }
                heap[position] = next
            }
            samples.values.append(1e9 * (seconds() - started) / Double(turns))
        }
        return samples.median
    }

    /// Makes the process's peak of resident memory what it has now.
    private static func forgetPeak() {
        try? Data("5".utf8).write(to: URL(fileURLWithPath: "/proc/self/clear_refs"), options: [])
    }

    private static func peakMebibytes() -> Double {
        let text = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
        let kibibytes = line?.split(separator: " ").compactMap { Double($0) }.first
        return (kibibytes ?? .nan) / 1024
    }
}

/// Decodes with ling-tiny, whose calls are so short that simulating them weighs most, through two sets of services in
/// turns: one that tells simulated times and one that does not.
struct SimulatedServiceBench {
    private static let rounds = 9
    private static let (batch, tokens) = (4, 64)

    func run(model: URL, threads: Int, _ progress: Progress) async throws -> SimulatorSpeed.Service {
        progress("decoding with and without simulated times")
        let without = try StepServices(model: model, threads: threads, experts: ["--slice", "none"])
        defer { without.stop() }
        let with = try StepServices(model: model, threads: threads, experts: ["--slice", "v7x-4"])
        defer { with.stop() }
        var (plain, timed, ratios) = (Samples(), Samples(), Samples())
        for _ in 0..<Self.rounds {
            let one = try await without.clients.measure(batch: Self.batch, tokens: Self.tokens)
            let other = try await with.clients.measure(batch: Self.batch, tokens: Self.tokens)
            plain.values.append(one.stepMilliseconds)
            timed.values.append(other.stepMilliseconds)
            ratios.values.append(other.stepMilliseconds / one.stepMilliseconds)
        }
        let counters = try await with.clients.counters(of: "experts")
        let kernel = Double(counters["kernel_nanoseconds"] ?? 0)
        return SimulatorSpeed.Service(
            model: model.lastPathComponent, stepMillisecondsWithout: plain.median, stepMillisecondsWith: timed.median,
            ratio: ratios.median, simulatingShare: Double(counters["simulating_nanoseconds"] ?? 0) / kernel)
    }
}
