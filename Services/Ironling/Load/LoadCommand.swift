import EventLoop
import Foundation
import Glibc
import LoadTesting
import ServiceSupport

/// `ironling load`: a described load on a server, and what it measured.
enum LoadCommand {
    static func run(_ values: OptionValues, _ loop: UVLoop) async throws {
        raiseFileLimit()
        let target = try LoadTarget(values, loop)
        let plan: LoadPlan
        do throws(LoadError) { plan = try await self.plan(values, target) } catch { throw UsageError("\(error)") }
        let measured = try await target.with(loop) { transport in
            try await measure(plan, transport, loop, shows: !values.isOn("quiet"))
        }
        let records = measured.records
        let summary = LoadSummary(
            records, settings: plan.settings, probe: measured.probe, clientShare: measured.clientShare)
        try print(summary, records, values)
        let failed = summary.failed + (summary.probe?.failures.count ?? 0)
        if failed > 0, !values.isOn("allow-failures") {
            ServiceProcess.complain("ironling load: \(failed) requests failed; see the errors above")
            exit(1)
        }
    }

    private static func plan(_ values: OptionValues, _ target: LoadTarget) async throws(LoadError) -> LoadPlan {
        do {
            var plan = try LoadPlan(values, vocabulary: try await target.vocabulary())
            for notice in plan.workload.notices { ServiceProcess.complain("ironling load: \(notice)") }
            plan.settings.backend = target.backend
            plan.settings.target = target.name
            return plan
        } catch { throw LoadError("\(error)") }
    }

    private static func measure(
        _ plan: LoadPlan, _ transport: any CompletionTransport, _ loop: UVLoop, shows: Bool
    ) async throws -> (records: [RequestRecord], probe: ProbeSummary?, clientShare: Double) {
        let meter = RequestMeter(
            loop: loop, transport: transport, epoch: loop.now, ignoresEnd: plan.ignoresEnd,
            timeoutMicroseconds: plan.timeoutMicroseconds)
        try await warmUp(plan, meter)
        let probes = plan.probe.map { ProbeStreams($0, meter: meter) }
        await probes?.start()
        let run = LoadRun(plan, meter: meter)
        loop.onSignal(SIGINT) { interrupt(run) }
        let display = shows ? ProgressDisplay(run, loop) : nil
        let processorTime = processorSeconds()
        await run.run()
        let share = (processorSeconds() - processorTime) * 1e6 / Double(max(1, run.state.end - run.state.start))
        display?.stop()
        await probes?.stop()
        let probe = probes.map {
            ProbeSummary(
                $0.records, streams: plan.probe?.count ?? 0, loadStart: run.state.start, loadEnd: run.state.end)
        }
        return (run.state.records, probe, share)
    }

    /// Processor time of this process so far.
    private static func processorSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Requests that are not measured; a server that fails them is not worth a load.
    private static func warmUp(_ plan: LoadPlan, _ meter: RequestMeter) async throws {
        for index in 0..<plan.warmUpRequests {
            let record = await meter.measure(
                plan.workload.request(at: index % plan.workload.count), index: index, due: meter.now, cancelAfter: nil
            ) { _ in }
            if case .failed(let failure) = record.outcome {
                throw StartError("warm-up request \(index + 1) failed: \(failure)")
            }
        }
    }

    /// The first interrupt ends the load and shows what was measured, the second ends the command.
    private static func interrupt(_ run: LoadRun) {
        guard !run.state.isCutOff else { exit(130) }
        run.cutOff()
    }

    private static func print(_ summary: LoadSummary, _ records: [RequestRecord], _ values: OptionValues) throws {
        let json = try ResultJSON.data(summary)
        if let path = values.text("report") {
            let text = HTMLReport.text(summary, records)
            guard FileManager.default.createFile(atPath: path, contents: Data(text.utf8)) else {
                throw StartError("--report \(path) cannot be written")
            }
        }
        if let path = values.text("output-file") { try append(json + [10], path) }
        ServiceProcess.announce(
            values.isOn("json") ? String(decoding: json, as: UTF8.self) : ResultBlock.text(summary))
    }

    /// Adds to the end of a file, which is made if there is none.
    static func append(_ data: Data, _ path: String) throws {
        if !FileManager.default.fileExists(atPath: path) {
            _ = FileManager.default.createFile(atPath: path, contents: nil)
        }
        guard let file = FileHandle(forWritingAtPath: path) else {
            throw StartError("--output-file \(path) cannot be written")
        }
        defer { try? file.close() }
        try file.seekToEnd()
        try file.write(contentsOf: data)
    }

    /// Thousands of connections need as many file descriptors: takes what the system allows.
    private static func raiseFileLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}

/// Shows how a run goes: one line that is written over on a terminal, a line now and then elsewhere.
final class ProgressDisplay: Sendable {
    private static let terminalMicroseconds: UInt64 = 500_000
    private static let fileMicroseconds: UInt64 = 10_000_000

    private let run: LoadRun
    private let loop: any Loop
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private let start: UInt64
    private let timer: LoopBound<(any LoopTimer)?>

    init(_ run: LoadRun, _ loop: any Loop) {
        self.run = run
        self.loop = loop
        start = loop.now
        timer = LoopBound(nil, on: loop)
        arm()
    }

    func stop() {
        timer.value?.cancel()
        timer.value = nil
        if isTerminal { write("\r\u{1B}[K") }
    }

    private func arm() {
        let pause = isTerminal ? Self.terminalMicroseconds : Self.fileMicroseconds
        timer.value = loop.schedule(afterMicroseconds: pause) { [weak self] in self?.show() }
    }

    private func show() {
        let line = run.state.progress.line(at: Double(loop.now - start) / 1e6, inFlight: run.inFlight)
        write(isTerminal ? "\r\u{1B}[K\(line)" : "\(line)\n")
        arm()
    }

    private func write(_ text: String) { StandardStream.error.write(text) }
}
