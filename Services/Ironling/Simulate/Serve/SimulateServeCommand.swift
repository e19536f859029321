import AttentionService
import Emulation
import Foundation
import LoadTesting
import ServiceSupport
import ServingSimulator

/// `ironling simulate serve`: a load on a deployment under a virtual clock.
enum SimulateServeCommand {
    static let options = CommandLineOptions(
        program: "ironling simulate serve",
        summary: """
            Puts a described load on a simulated deployment and prints what `ironling load` would have measured, in seconds
            instead of hours: the decisions are those of the services, the times those of the simulated device. The same
            options and seed give the same bytes.
            """,
        options: deploymentOptions + LoadCommand.workloadOptions.filter { $0.name != "disable-ignore-eos" }
            + lengthOptions + LoadCommand.loadOptions.filter { arrivalNames.contains($0.name) } + outputOptions)

    private static let arrivalNames = [
        "max-concurrency", "concurrency-ramp-duration", "request-rate", "burstiness", "ramp-up-strategy",
        "ramp-up-start-rps", "ramp-up-end-rps", "cancellation-rate",
    ]

    private static let deploymentOptions =
        [
            CommandLineOption(
                "model", value: "NAME|DIR", help: "ling-2.6-1t, ling-2.6-flash, or a folder with a config.json",
                fallback: "ling-2.6-1t")
        ] + EmulationOptions.options + [
            CommandLineOption("prefill-chunk", value: "N", help: "prompt rows per rank and step", fallback: "2048"),
            CommandLineOption("slots", value: "N", help: "requests a rank holds", shownFallback: "what the HBM holds"),
            CommandLineOption(
                "kv-tokens", value: "N", help: "tokens of KV a rank holds", shownFallback: "what the HBM holds"),
            CommandLineOption(
                "attention", value: "N",
                help: "slices that compute prompts and decode", shownFallback: "1, or 0 with --prefill"),
            CommandLineOption("prefill", value: "N", help: "slices that compute prompts", fallback: "0"),
            CommandLineOption("decode", value: "N", help: "slices that decode", fallback: "0"),
            CommandLineOption(
                "placement", value: "POLICY", help: "least-loaded, round-robin or prefix-affine",
                fallback: "least-loaded"),
            CommandLineOption("queue", value: "N", help: "requests that may wait at the gateway", fallback: "1000000"),
            CommandLineOption(
                "queue-timeout", value: "SEC", help: "longest wait there; then the request fails", fallback: "86400"),
        ]

    private static let lengthOptions = [
        CommandLineOption("input-len", value: "N", help: "the same as --random-input-len"),
        CommandLineOption("output-len", value: "N", help: "the same as --random-output-len"),
        CommandLineOption(
            "send-gap", value: "US", help: "microseconds the client needs to send one request", fallback: "0"),
    ]

    private static let outputOptions = [
        CommandLineOption(
            "goodput", value: "ttft:MS tpot:MS e2el:MS", help: "bounds a request must keep to count", takesMany: true),
        CommandLineOption("json", help: "print one JSON object instead of the tables"),
        CommandLineOption("output-file", value: "FILE", help: "append the JSON object to a file, as a line"),
        CommandLineOption("report", value: "FILE", help: "write an HTML file with plots"),
        CommandLineOption("plot", value: "FILE", help: "write the plots as one SVG file"),
        CommandLineOption("trace", value: "FILE", help: "write a timeline in Chrome's format, which Perfetto opens"),
        CommandLineOption("trace-limit", value: "N", help: "steps and requests in it, at most", fallback: "20000"),
        CommandLineOption("quiet", help: "no progress"),
    ]

    static func run(_ values: OptionValues) throws {
        let plan = try ServePlan(values)
        let display = values.isOn("quiet") ? nil : SimulationDisplay()
        var simulation = ServingSimulation(plan.scenario)
        let result = simulation.run { progress in
            display?.show(progress)
            return true
        }
        display?.end()
        let report = ServeReport(plan, result)
        let json = try report.json()
        try write(values, "report", Data(report.html().utf8))
        try write(values, "plot", Data(report.picture().utf8))
        try write(values, "trace", Data(result.timeline.chromeTrace()))
        if let path = values.text("output-file") { try LoadCommand.append(json + [10], path) }
        ServiceProcess.announce(values.isOn("json") ? String(decoding: json, as: UTF8.self) : report.text())
    }

    private static func write(_ values: OptionValues, _ option: String, _ data: @autoclosure () -> Data) throws {
        guard let path = values.text(option) else { return }
        guard FileManager.default.createFile(atPath: path, contents: data()) else {
            throw StartError("--\(option) \(path) cannot be written")
        }
    }
}

/// Shows how a simulation goes, where it takes long enough to be asked about.
final class SimulationDisplay {
    private static let quietSeconds = 1.0
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private let start = Date()
    private var shown = 0.0
    private var hasShown = false

    func show(_ progress: ServingProgress) {
        let seconds = Date().timeIntervalSince(start)
        guard seconds > Self.quietSeconds, seconds - shown > (isTerminal ? 0.2 : 5) else { return }
        shown = seconds
        hasShown = true
        let line =
            "simulated \(Int(Double(progress.nanoseconds) / 1e9)) s  \(progress.ended)/\(progress.total) done  "
            + "\(progress.inFlight) in flight  \(progress.tokens) tokens"
        StandardStream.error.write(isTerminal ? "\r\u{1B}[K\(line)" : "\(line)\n")
    }

    func end() {
        if hasShown, isTerminal { StandardStream.error.write("\r\u{1B}[K") }
    }
}
