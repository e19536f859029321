import Checkpoint
import Foundation
import Glibc
import Numerics
import ServiceSupport

private let parts = ["rpc", "http", "gateway", "simulator", "model", "services", "hand-off", "loading"]
private let options = CommandLineOptions(
    program: "ironling-bench",
    summary:
        "Measures the RPC, the simulator, the kernels and what a step costs beside its kernels, each against something measured "
        + "in the same run.",
    options: [
        CommandLineOption("out", value: "DIR", help: "folder for bench.txt, bench.json and checkpoints"),
        CommandLineOption(
            "only", value: parts.joined(separator: ","), help: "what to run", fallback: parts.joined(separator: ",")),
        CommandLineOption(
            "weights", value: "bf16,fp8,fp32", help: "stored types of the generated checkpoints",
            fallback: "bf16,fp8"),
        CommandLineOption("rounds", value: "N", help: "rounds of 500 round trips", fallback: "10"),
        CommandLineOption(
            "threads", value: "N", help: "threads that compute", fallback: "\(ServiceProcess.defaultThreads)"),
    ])

private func elementType(_ name: String) throws -> ElementType {
    switch name {
    case "bf16": .bfloat16
    case "fp8": .float8E4M3
    case "fp32": .float32
    default: throw UsageError("--weights takes bf16, fp8 and fp32, not \"\(name)\"")
    }
}

private func run(_ values: OptionValues) async throws {
    let progress = Progress()
    let out = URL(fileURLWithPath: values.text("out") ?? ".build/bench")
    let threads = try values.integer("threads", in: 1...256)
    let chosen = try values.required("only").split(separator: ",").map(String.init)
    if let unknown = chosen.first(where: { !parts.contains($0) }) {
        throw UsageError("--only takes \(parts.joined(separator: ", ")), not \"\(unknown)\"")
    }
    let types = try values.required("weights").split(separator: ",").map { (String($0), try elementType(String($0))) }
    var report = Report(machine: Machine(threads: threads))
    if chosen.contains("rpc") {
        let grpc = out.appendingPathComponent("grpc/grpc-echo")
        report.roundTrips = try RoundTrips.measure(
            rounds: try values.integer("rounds", in: 1...1000), grpc: grpc, progress)
    }
    if chosen.contains("http") { report.events = try EventBench().run(progress) }
    if chosen.contains("simulator") { report.simulator = try await simulatorSpeed(threads, progress) }
    if chosen.contains("gateway") { report.gateway = try await gatewayCost(threads, progress) }
    if chosen.contains("hand-off") { report.handOff = try await handOffCost(out, threads, progress) }
    if chosen.contains("loading") {
        let synthetic = try SyntheticCheckpoint(type: .bfloat16, in: out, progress)
        report.loading = try LoadBench(directory: synthetic.directory, out: out).run(rounds: 7, progress)
    }
    let isModel = chosen.contains("model")
    guard isModel || chosen.contains("services") else { return try finish(report, out, progress) }
    let team = ThreadTeam(threadCount: threads)
    let roofs = isModel ? try Roofs(team) : nil
    for (name, type) in types {
        let synthetic = try SyntheticCheckpoint(type: type, in: out, progress)
        if let roofs {
            let checkpoint = try Checkpoint(directory: synthetic.directory)
            report.models.append(try ModelBench(checkpoint, team).run(name, roofs, progress))
            report.peaks = roofs.peaks
        }
        if chosen.contains("services") {
            report.stepShares.append(try await stepShare(name, synthetic.directory, threads, progress))
        }
    }
    try finish(report, out, progress)
}

/// The smallest checkpoint there is: what the gateway costs does not depend on the model.
private func gatewayCost(_ threads: Int, _ progress: Progress) async throws -> GatewayCost {
    let folders = ["Models/ling-tiny", "Tests/Fixtures/golden/base"]
    guard let folder = folders.first(where: { FileManager.default.fileExists(atPath: $0 + "/model.safetensors") })
    else {
        throw BenchError("none of \(folders.joined(separator: ", ")) is here: run it from the repository's root")
    }
    progress("gateway: starting the services")
    let bench = try GatewayBench(model: URL(fileURLWithPath: folder), threads: threads)
    defer { bench.stop() }
    return try await bench.run(URL(fileURLWithPath: folder).lastPathComponent, progress)
}

private func handOffCost(_ out: URL, _ threads: Int, _ progress: Progress) async throws -> HandOffCost {
    let synthetic = try SyntheticCheckpoint(type: .bfloat16, in: out, progress)
    progress("hand-off: starting the services")
    let bench = try HandOffBench(model: synthetic.directory, threads: threads)
    defer { bench.stop() }
    return try await bench.run(rounds: 3, progress)
}

private func finish(_ report: Report, _ out: URL, _ progress: Progress) throws {
    var report = report
    report.seconds = progress.elapsed
    try report.write(to: out)
    print("\n" + report.text)
    print("written to \(out.path)/bench.txt and bench.json after \(report.seconds.short) s")
}

private func simulatorSpeed(_ threads: Int, _ progress: Progress) async throws -> SimulatorSpeed {
    var speed = try SimulatorBench().run(progress)
    let model = URL(fileURLWithPath: "Models/ling-tiny")
    if FileManager.default.fileExists(atPath: model.appendingPathComponent("model.safetensors").path) {
        speed.service = try await SimulatedServiceBench().run(model: model, threads: threads, progress)
    }
    return speed
}

private func stepShare(_ name: String, _ model: URL, _ threads: Int, _ progress: Progress) async throws -> StepShare {
    progress("\(name): starting attention, experts and sampler")
    let services = try StepServices(model: model, threads: threads)
    defer { services.stop() }
    var batches: [StepShare.Batch] = []
    for (batch, tokens) in [(1, 256), (8, 64), (32, 32)] {
        progress("\(name): \(batch) requests through the services")
        batches.append(try await services.clients.measure(batch: batch, tokens: tokens))
    }
    return StepShare(weights: name, batches: batches)
}

signal(SIGPIPE, SIG_IGN)
private let arguments = Array(CommandLine.arguments.dropFirst())
do {
    if arguments.first == "rpc-server" {
        try await RPCEcho.serve()
    } else if arguments.first == "rpc-client", arguments.count == 2, let port = Int(arguments[1]) {
        try await RPCEcho.measure(port: port)
    } else if let values = try options.parse(arguments, environment: ProcessInfo.processInfo.environment) {
        try await run(values)
    } else {
        print(options.help)
    }
} catch {
    ServiceProcess.complain("ironling-bench: \(error)")
    exit(error is UsageError ? 64 : 1)
}
