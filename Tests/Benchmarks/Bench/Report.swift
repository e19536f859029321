import Foundation

/// Everything one run measured.
struct Report: Encodable {
    let machine: Machine
    var peaks: Peaks?
    var roundTrips: RoundTrips?
    var events: [EventSpeed] = []
    var simulator: SimulatorSpeed?
    var models: [ModelSpeed] = []
    var stepShares: [StepShare] = []
    var gateway: GatewayCost?
    var handOff: HandOffCost?
    var loading: LoadCost?
    var seconds = 0.0

    /// The tables people read.
    var text: String {
        var lines = [
            "\(machine.cpu), \(machine.processors) processors, \(machine.threads) threads, "
                + "\(machine.memoryBytes >> 30) GiB, \(machine.kernel)"
        ]
        if let peaks {
            lines += [
                "measured roofs: \((peaks.bytesPerSecond / 1e9).short) GB/s read, "
                    + "\((peaks.flopsPerSecond / 1e9).short) GFLOP/s fp32 multiply-add"
            ]
        }
        if let roundTrips { lines += [""] + Self.table(roundTrips) }
        if !events.isEmpty { lines += [""] + Self.table(events) }
        if let simulator { lines += [""] + Self.table(simulator) }
        for model in models { lines += [""] + Self.table(model) }
        for share in stepShares { lines += [""] + Self.table(share) }
        if let gateway { lines += [""] + Self.table(gateway) }
        if let handOff { lines += [""] + Self.table(handOff) }
        if let loading { lines += [""] + Self.table(loading) }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func table(_ trips: RoundTrips) -> [String] {
        var rows = [["round trip", "processors", "bytes", "median µs", "p99 µs", "× libuv"]]
        for size in trips.sizes {
            for contestant in size.contestants {
                rows.append([
                    contestant.name, "\(size.processors)", "\(size.bytes)", contestant.medianMicroseconds.short,
                    contestant.p99Microseconds.short, contestant.ratioToLibuv.short,
                ])
            }
        }
        return aligned(rows) + (trips.note.map { [$0] } ?? [])
    }

    private static func table(_ events: [EventSpeed]) -> [String] {
        var rows = [["event of a chat stream", "bytes", "direct µs", "tree µs", "tree / direct"]]
        for speed in events {
            rows.append([
                speed.event, "\(speed.bytes)", speed.directMicroseconds.short, speed.treeMicroseconds.short,
                speed.ratio.short,
            ])
        }
        return aligned(rows)
    }

    private static func table(_ speed: SimulatorSpeed) -> [String] {
        var rows = [["simulated call", "ms", "events", "ns/event", "× heap", "simulated ms", "peak MiB"]]
        for call in speed.calls {
            rows.append([
                call.name, call.milliseconds.short, "\(call.events)",
                (call.milliseconds * 1e6 / Double(call.events)).short, call.eventOverHeap.short,
                call.simulatedMilliseconds.short, call.peakMebibytes.short,
            ])
        }
        let heap = "heap: \(speed.heapNanoseconds.short) ns to take the earliest of 4096 times and put a later one back"
        guard let service = speed.service else { return aligned(rows) + [heap] }
        return aligned(rows) + [
            heap,
            "experts service, \(service.model): a step takes \(service.stepMillisecondsWith.short) ms with simulated times, "
                + "\(service.stepMillisecondsWithout.short) without, ratio \(String(format: "%.3f", service.ratio)); "
                + "simulating took \(service.simulatingShare.percent) of the experts' kernels",
        ]
    }

    private static func table(_ model: ModelSpeed) -> [String] {
        var rows = [["\(model.weights), \(model.checkpointBytes >> 20) MiB", "tokens/s", "ms", "of the roof"]]
        for decode in model.decode {
            rows.append([
                "decode, \(decode.batch) rows", decode.tokensPerSecond.short, decode.stepMilliseconds.short,
                decode.partOfBandwidth.percent + " of bandwidth",
            ])
        }
        rows.append([
            "prefill, \(model.prefill.tokens) tokens", model.prefill.tokensPerSecond.short,
            model.prefill.milliseconds.short, model.prefill.partOfPeak.percent + " of multiply-adds",
        ])
        return aligned(rows)
    }

    private static func table(_ share: StepShare) -> [String] {
        var rows = [
            [
                "\(share.weights), through services", "tokens/s", "step ms", "attention", "experts", "sampler",
                "not kernel",
            ]
        ]
        for batch in share.batches {
            rows.append([
                "\(batch.batch) requests", batch.tokensPerSecond.short, batch.stepMilliseconds.short,
                batch.attentionKernelMilliseconds.short, batch.expertsKernelMilliseconds.short,
                batch.samplerKernelMilliseconds.short, batch.overhead.percent,
            ])
        }
        return aligned(rows)
    }

    private static func table(_ cost: GatewayCost) -> [String] {
        let request = cost.request
        var requests = [["\(cost.model), completion of one token", "median µs", "in the gateway µs", "× direct"]]
        for (name, time) in [
            ("directly from attention", request.directMicroseconds), ("binary port", request.binaryMicroseconds),
            ("HTTP", request.httpMicroseconds),
        ] {
            requests.append([
                name, time.short, (time - request.directMicroseconds).short, (time / request.directMicroseconds).short,
            ])
        }
        var rows = [
            [
                "a streamed token", "direct µs", "HTTP µs", "HTTP / direct", "in the gateway µs",
                "gateway's processor µs",
            ]
        ]
        for item in cost.streams {
            rows.append([
                "\(item.streams) streams", item.directMicroseconds.short, item.httpMicroseconds.short,
                (item.httpMicroseconds / item.directMicroseconds).short, item.deliveryMicroseconds.short,
                item.processorMicroseconds.short,
            ])
        }
        return aligned(requests) + [""] + aligned(rows)
    }

    private static func table(_ cost: LoadCost) -> [String] {
        aligned([
            ["reading \(cost.bytes >> 20) MiB of weights", "ms", "added"],
            ["nothing else", cost.readMilliseconds.short, ""],
            ["with digests, first start", cost.firstMilliseconds.short, cost.first.percent],
            ["with digests, later starts", cost.laterMilliseconds.short, cost.later.percent],
        ])
    }

    private static func table(_ cost: HandOffCost) -> [String] {
        aligned([
            ["prompt of \(cost.promptTokens) tokens", "one instance ms", "handed off ms", "added"],
            [
                "to the first token", cost.colocatedFirstMilliseconds.short, cost.handedOffFirstMilliseconds.short,
                cost.added.percent,
            ],
            [
                "to the second token", cost.colocatedMilliseconds.short, cost.handedOffMilliseconds.short,
                cost.addedToSecond.percent,
            ],
        ])
    }

    /// Columns padded to their widest cell: the first to the left, the others to the right.
    private static func aligned(_ rows: [[String]]) -> [String] {
        let widths = (rows.first ?? []).indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            row.enumerated().map { column, cell in
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                return column == 0 ? cell + padding : padding + cell
            }.joined(separator: "  ")
        }
    }

    /// Writes the tables and the JSON into `folder`.
    func write(to folder: URL) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try encoder.encode(self).write(to: folder.appendingPathComponent("bench.json"))
        try Data(text.utf8).write(to: folder.appendingPathComponent("bench.txt"))
    }
}
