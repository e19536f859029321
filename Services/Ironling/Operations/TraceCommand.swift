import EventLoop
import Foundation
import HTTP
import JSON
import Observability
import ServiceSupport

/// `ironling trace`: one request, or some seconds of work, of all services as one timeline.
enum TraceCommand {
    static let options = CommandLineOptions(
        program: "ironling trace",
        summary:
            "Writes what all services did for one request, or for some seconds, as a timeline for ui.perfetto.dev.",
        options: [
            OperationsClient.option,
            CommandLineOption("model", value: "DIR", help: "start services of this checkpoint for one request"),
            CommandLineOption("base-url", value: "URL", help: "gateway's HTTP address, for --prompt and --prompt-ids"),
            CommandLineOption("prompt", value: "TEXT", help: "trace a completion of this text"),
            CommandLineOption("prompt-ids", value: "1,2,3", help: "trace a completion of these token ids"),
            CommandLineOption("max-tokens", value: "N", help: "tokens to generate", fallback: "16"),
            CommandLineOption("id", value: "TRACE", help: "a request that was sent with the sampled flag, by trace id"),
            CommandLineOption("seconds", value: "N", help: "everything that happens in this time"),
            CommandLineOption(
                "output", value: "FILE", help: "the timeline, Chrome's trace format", fallback: "trace.json"),
            CommandLineOption("plot", value: "FILE", help: "draw the timeline as SVG too, with one step enlarged"),
            CommandLineOption("api-key-file", value: "FILE", help: "file with the API key of the gateway"),
            CommandLineOption(
                "prefill", value: "N", help: "instances that compute prompts, with --model", fallback: "0"),
            CommandLineOption("decode", value: "N", help: "instances that decode, with --model", fallback: "0"),
            CommandLineOption("experts", value: "N", help: "experts processes, with --model", fallback: "1"),
            CommandLineOption("byte-tokenizer", help: "without tokenizer.json, treat ids 0…255 as bytes of UTF-8"),
            CommandLineOption("json", help: "print what was collected as one JSON object"),
        ])

    static func run(_ values: OptionValues, _ loop: UVLoop) async throws {
        let modes = ["prompt", "prompt-ids", "id", "seconds"].filter { values.text($0) != nil }
        guard modes.count == 1 else {
            throw UsageError("one of --prompt, --prompt-ids, --id and --seconds is required")
        }
        guard values.text("model") == nil else { return try await runServices(values, loop) }
        let client = OperationsClient(try OperationsClient.addresses(try values.required("services")), loop: loop)
        defer { client.close() }
        try await collect(values, client, values.text("base-url"), loop)
    }

    /// Starts services for one request.
    private static func runServices(_ values: OptionValues, _ loop: UVLoop) async throws {
        guard values.text("prompt") != nil || values.text("prompt-ids") != nil, values.text("services") == nil,
            values.text("base-url") == nil
        else { throw UsageError("--model goes with --prompt or --prompt-ids, and with no running services") }
        var plan = ServiceSetPlan(model: try values.required("model"))
        plan.prefills = try values.integer("prefill", in: 0...16)
        plan.decodes = try values.integer("decode", in: 0...16)
        guard (plan.prefills > 0) == (plan.decodes > 0) else { throw UsageError("--prefill and --decode go together") }
        plan.attentions = plan.prefills > 0 ? 0 : 1
        plan.experts = try values.integer("experts", in: 1...64)
        plan.usesBytes = values.isOn("byte-tokenizer")
        (plan.isQuiet, plan.servesMetrics, plan.logLevel) = (true, true, "warning")
        let set = try ServiceSet(plan, loop: loop)
        for number in [SIGINT, SIGTERM] {
            loop.onSignal(number) {
                set.kill()
                exit(1)
            }
        }
        set.onFailure { reason in
            ServiceProcess.complain("ironling trace: \(reason)")
            set.kill()
            exit(1)
        }
        do {
            guard try await set.start() else { throw StartError("stopped before the services were ready") }
            let addresses = set.metricsAddresses
            let client = OperationsClient(addresses, loop: loop)
            defer { client.close() }
            let url = "http://127.0.0.1:\(set.httpPort)"
            // The first request pays for what later ones find: pages, connections, simulated times.
            try await TracedCompletion(values, url, loop).run(.random())
            try await collect(values, client, url, loop)
        } catch {
            await set.stop()
            throw error
        }
        await set.stop()
    }

    private static func collect(
        _ values: OptionValues, _ client: OperationsClient, _ url: String?, _ loop: UVLoop
    ) async throws {
        let collector = try await TraceCollector(client)
        var trace: TraceContext?
        let reports: [SpanReport]
        if values.text("seconds") != nil {
            let seconds = try values.number("seconds", in: 0.01...30)
            reports = try await collector.reports(
                "seconds=\(seconds)", timeoutMicroseconds: UInt64((seconds + 10) * 1e6))
        } else {
            let wanted = try await self.trace(values, url, loop)
            trace = wanted
            reports = try await finished(collector, wanted)
        }
        try report(reports, trace, values)
    }

    /// The trace of `--id`, or of a completion that is made now.
    private static func trace(_ values: OptionValues, _ url: String?, _ loop: UVLoop) async throws -> TraceContext {
        if let id = values.text("id") {
            guard let trace = TraceContext(id: id) else {
                throw UsageError("--id takes the 32 lower-case hexadecimal digits of a trace id, not \"\(id)\"")
            }
            return trace
        }
        guard let url else { throw UsageError("--prompt and --prompt-ids need --base-url or --model") }
        let trace = TraceContext.random(isSampled: true)
        try await TracedCompletion(values, url, loop).run(trace)
        return trace
    }

    /// The gateway's last span may come a moment after the client has its answer.
    private static func finished(_ collector: TraceCollector, _ trace: TraceContext) async throws -> [SpanReport] {
        for _ in 0..<20 {
            let reports = try await collector.reports(of: trace)
            let gateways = reports.filter { $0.service == "gateway" }
            if gateways.isEmpty || gateways.contains(where: { $0.spans.contains { $0.name == .request } }) {
                return reports
            }
            try await Task.sleep(nanoseconds: 50_000_000)
        }
        return try await collector.reports(of: trace)
    }

    private static func report(_ reports: [SpanReport], _ trace: TraceContext?, _ values: OptionValues) throws {
        let count = reports.reduce(0) { $0 + $1.spans.count }
        guard count > 0 else {
            throw StartError(
                trace.map { "no service has spans of trace \($0.id): was it sent with the sampled flag?" }
                    ?? "nothing happened in that time")
        }
        let output = try values.required("output")
        let file = TraceAssembly(reports: reports, trace: trace).chromeTrace()
        try write(Data(file), to: output)
        if let plot = values.text("plot"), let picture = TracePlot(reports, trace).svg() {
            try write(Data(picture.utf8), to: plot)
        }
        for report in reports where report.spans.count >= report.capacity {
            ServiceProcess.complain(
                "ironling trace: \(report.instance) keeps \(report.capacity) spans; earlier ones are missing")
        }
        let counts = reports.map { "{\"instance\":\(JSONText.quoted($0.instance)),\"spans\":\($0.spans.count)}" }
        if values.isOn("json") {
            print(
                "{\"trace\":\(trace.map { JSONText.quoted($0.id) } ?? "null"),\"output\":\(JSONText.quoted(output)),"
                    + "\"spans\":\(count),\"services\":[\(counts.joined(separator: ","))]}")
        } else {
            for report in reports { print("\(report.instance): \(report.spans.count) spans") }
            print((trace.map { "trace \($0.id): " } ?? "") + "open \(output) at ui.perfetto.dev")
        }
    }

    private static func write(_ data: Data, to file: String) throws {
        do { try data.write(to: URL(fileURLWithPath: file)) } catch {
            throw StartError("\(file) cannot be written: \(error.localizedDescription)")
        }
    }
}

/// A completion over HTTP that asks to be traced. Confined to the loop.
struct TracedCompletion {
    private let client: HTTPClient
    private let path: String
    private let headers: [(name: String, value: String)]
    private let body: [UInt8]

    init(_ values: OptionValues, _ url: String, _ loop: UVLoop) throws {
        let place = try LoadTarget.parse(url)
        client = HTTPClient(loop: loop, host: place.host, port: place.port)
        path = place.path + "/v1/completions"
        var fields: [String: Any] = [
            "max_tokens": try values.integer("max-tokens", in: 1...65536), "temperature": 0, "ignore_eos": true,
        ]
        if let text = values.text("prompt") {
            fields["prompt"] = text
        } else {
            let ids = try values.required("prompt-ids").split(separator: ",").map { part in
                guard let id = UInt32(part.trimmingCharacters(in: .whitespaces)) else {
                    throw UsageError("--prompt-ids takes token ids separated by commas, not \"\(part)\"")
                }
                return Int(id)
            }
            fields["prompt"] = ids
        }
        body = Array(try JSONSerialization.data(withJSONObject: fields))
        headers = try LoadTarget.key(values).map { [("Authorization", "Bearer \($0)")] } ?? []
    }

    /// Makes the completion under this trace and waits for its end.
    func run(_ trace: TraceContext) async throws {
        defer { client.close() }
        let own = [("Content-Type", "application/json"), ("traceparent", trace.traceparent(span: 1))]
        let response = try await client.send(
            HTTPRequest(method: "POST", path: path, headers: headers + own, body: body),
            timeoutMicroseconds: 600_000_000)
        let answer = try await response.body()
        guard response.status == 200 else {
            throw StartError(
                "the completion was answered with HTTP \(response.status): \(ServerProblem.sentence(answer))")
        }
    }
}
