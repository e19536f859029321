import Foundation
import FusedMoE
import Numerics
import ServiceSupport
import TPU

/// `ironling simulate moe`: one call of the fused kernel on a simulated slice.
enum SimulateMoECommand {
    static let options = CommandLineOptions(
        program: "ironling simulate moe",
        summary: "Runs one call of the fused MoE kernel on a simulated TPU v7x and prints where its time goes.",
        options: [
            CommandLineOption("kernel", value: "v1|v2", help: "which program", fallback: "v2"),
            CommandLineOption(
                "shape", value: "NAME", help: "ling-2.6-1t or ling-2.6-flash", shownFallback: "ling-2.6-1t"),
            CommandLineOption("hidden", value: "H", help: "hidden width of another layer; with the next three"),
            CommandLineOption("intermediate", value: "I", help: "width of one expert"),
            CommandLineOption("experts", value: "E", help: "routed experts over all devices"),
            CommandLineOption("top-k", value: "K", help: "experts per token"),
            CommandLineOption(
                "scale-block", value: "none|128", help: "fp8 scales: per channel, or per 128 inputs as well",
                fallback: "none"),
            CommandLineOption(
                "slice", value: "NAME", help: SliceTopology.names.joined(separator: ", "), fallback: "v7x-16"),
            CommandLineOption(
                "ep", value: "N", help: "devices that share the experts", shownFallback: "all of the slice"),
            CommandLineOption("tokens", value: "T", help: "tokens over all devices", fallback: "16384"),
            CommandLineOption("weights", value: "fp8|bf16", help: "stored weights", fallback: "fp8"),
            CommandLineOption(
                "activation-quant", value: "on|off", help: "send tokens in fp8",
                shownFallback: "on for v2 with fp8 weights"),
            CommandLineOption(
                "shared-expert", value: "WHERE", help: "in-kernel, external or none", fallback: "in-kernel"),
            CommandLineOption(
                "tile", value: "SIZES",
                help: "bt=…,bf=…,bts=…,btc=…,bse=…,bd1=…,bd2=…; what is left out comes from the tuned tile"),
            CommandLineOption(
                "metadata", value: "HOW", help: "butterfly (as the blog measured) or direct", fallback: "butterfly"),
            CommandLineOption("active-list", value: "on|off", help: "visit only experts that got rows", fallback: "on"),
            CommandLineOption("prequant", value: "per-bt|whole", help: "when tokens are quantised", fallback: "per-bt"),
            CommandLineOption(
                "ablate", value: "PARTS",
                help: "switch off: matmul, ffn, scatter, gather, weights, shared (comma-separated)"),
            CommandLineOption(
                "routing", value: "PATTERN",
                help: "uniform, zipf=S, or hotspot=R (device 0's experts R times as often)", fallback: "uniform"),
            CommandLineOption("seed", value: "N", help: "seed of the routing", fallback: "0"),
            CommandLineOption(
                "wrap", value: "on|off", help: "close the slice's axes of four chips to rings",
                shownFallback: "on for v7x-64"),
            CommandLineOption("parameters", value: "FILE", help: "device parameters instead of the calibrated ones"),
            CommandLineOption("tune", help: "look for the fastest tile first; sizes given with --tile stay"),
            CommandLineOption("trace", value: "FILE", help: "write a timeline for ui.perfetto.dev"),
            CommandLineOption(
                "timeline", value: "FILE", help: "draw what one device and the busiest link do when, as SVG",
                implied: "timeline.svg"),
            CommandLineOption("plot", value: "FILE", help: "draw V1 against V2 as SVG", implied: "fused-moe.svg"),
            CommandLineOption("json", help: "print one JSON object instead of tables"),
        ])

    static func run(_ values: OptionValues) throws {
        var call: KernelCall
        do {
            call = try KernelCallOptions.call(values)
        } catch {
            try reportRefusal(error, values)
            throw error
        }
        let tuning = values.isOn("tune") ? try tune(call, values) : nil
        if let tuning { call.tile = tuning.best.tile }
        let needsTimeline = values.text("trace") != nil || values.text("timeline") != nil
        let run = try call.run(recordsTimeline: needsTimeline)
        let report = try KernelReport(call, run, tuning: tuning)
        print(values.isOn("json") ? try report.json() : report.text())
        if let file = values.text("trace"), let timeline = run.result.timeline {
            try write(Data(timeline.chromeTrace()), to: file, "--trace")
            ServiceProcess.complain("wrote \(file): open it in ui.perfetto.dev")
        }
        if let file = values.text("timeline"), let plot = TimelinePlot(report) {
            try write(Data(plot.svg().utf8), to: file, "--timeline")
            ServiceProcess.complain("wrote \(file)")
        }
        if let file = values.text("plot") {
            try write(Data(try KernelComparison(call, report).plot().svg().utf8), to: file, "--plot")
            ServiceProcess.complain("wrote \(file)")
        }
    }

    /// A tile that does not fit is an answer too: scripts get it as JSON besides the exit status.
    private static func reportRefusal(_ error: any Error, _ values: OptionValues) throws {
        guard values.isOn("json"), let error = error as? FusedMoEError else { return }
        var object: [String: Any] = [
            "fits": false, "error": ["code": error.code.rawValue, "message": error.description],
        ]
        if error.code == .vectorMemory, let bytes = error.neededBytes {
            object["vmem_mib"] = (Double(bytes) / 1048.576).rounded() / 1000
        }
        print(try KernelReport.json(object))
    }

    /// The call with the fastest tile that was found, and how it was.
    private static func tune(_ call: KernelCall, _ values: OptionValues) throws -> TileTuner.Outcome {
        let fixed = try values.text("tile").map { try TileOverrides(parsing: $0) } ?? TileOverrides()
        let outcome = try TileTuner(call: call, fixed: fixed).run { count, best in
            ServiceProcess.progress(
                "tuning: \(count) tiles, best \(KernelReport.number(best.milliseconds)) ms with \(best.tile)")
        }
        ServiceProcess.progress(nil)
        return outcome
    }

    static func write(_ data: Data, to file: String, _ option: String) throws {
        do {
            try data.write(to: URL(fileURLWithPath: file))
        } catch { throw StartError("\(option): \(file) cannot be written: \(error.localizedDescription)") }
    }
}
