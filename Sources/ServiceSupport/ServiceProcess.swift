import EventLoop
import Foundation
import Glibc
import HTTP
import Observability
import RPC

/// A service that runs until it is told to stop.
public protocol RunningService: Sendable {
    /// "gateway", "attention", "experts" or "sampler".
    var name: String { get }
    /// Which process of that service.
    var instanceID: String { get }
    /// Metrics, spans and requests at work.
    var telemetry: Telemetry { get }
    /// What it holds and what it has to do, by name: the answer to `status` and what `/metrics` shows.
    func counters() async -> [String: Int64]
    /// Takes no new work, lets what is in flight finish within a bound, and returns.
    func drain() async
}

/// A service that could not start; `description` is the sentence to print.
public struct StartError: Error, Sendable, CustomStringConvertible {
    /// One sentence.
    public let description: String

    /// An error with its sentence.
    public init(_ description: String) { self.description = description }
}

/// What every service's `main` does: options, loop, signals, exit codes.
public enum ServiceProcess {
    /// Options all services share.
    public static let commonOptions = [
        CommandLineOption(
            "model", value: "DIR", help: "checkpoint folder (config.json, safetensors); emulated, also a model's name"),
        modeOption,
        CommandLineOption(
            "host", value: "ADDRESS", help: "address or name to listen on; 0.0.0.0 or :: for all", fallback: "127.0.0.1"
        ),
        CommandLineOption(
            "secret-file", value: "FILE", help: "file with the secret that all services share", guards: true),
        ServiceProcess.threadsOption("threads that compute"),
        CommandLineOption("decay", value: "a|b", help: "decay convention of the linear layers", fallback: "a"),
        weightsOption,
        ServedCheckpoint.cacheOption,
        CommandLineOption(
            "metrics-port", value: "PORT",
            help: "TCP port of /metrics, /trace and /debug/requests; without it there is none"),
        logLevelOption,
        CommandLineOption("parent", value: "PID", help: "end at once when this process is no longer the parent"),
        CommandLineOption("tell", value: "FD", help: "open descriptor to tell what is held and done, a line each"),
    ]

    /// `--weights`.
    public static let weightsOption = CommandLineOption(
        "weights", value: "auto|copy|map", help: "read weights into huge pages, or map the files", fallback: "auto")

    /// `--mode`.
    public static let modeOption = CommandLineOption(
        "mode", value: "MODE", help: "compute, or emulate: shapes instead of weights, paced by a simulated device",
        fallback: "compute", choices: ["compute", "emulate"])

    /// `--log-level`.
    public static let logLevelOption = CommandLineOption(
        "log-level", value: "LEVEL", help: "debug, info, warning or error", fallback: "info",
        choices: ["debug", "info", "warning", "error"])

    /// `--threads`.
    public static func threadsOption(_ help: String) -> CommandLineOption {
        CommandLineOption(
            "threads", value: "N", help: help, fallback: "\(defaultThreads)", shownFallback: "one per processor")
    }

    /// Processors online.
    public static var defaultThreads: Int { max(1, ProcessInfo.processInfo.activeProcessorCount) }

    /// A name for this process that no other one has: in containers all have the same process id, and one that was
    /// restarted has that of its predecessor.
    public static func instanceID(_ service: String) -> String {
        let host = ProcessInfo.processInfo.hostName.prefix(64)
        let chance = String(UInt32.random(in: 0...UInt32.max), radix: 16)
        return "\(service)-\(host)-\(getpid())-\(chance)"
    }

    /// Parses the command line, starts `body` on a loop of its own and runs until SIGINT or SIGTERM. Exit status: 0
    /// after a stop, 64 for a command line that cannot be used, 1 for anything else.
    ///
    /// - simulates: true for a command line that needs a simulator; the process then goes on as the command `ironling`,
    ///   which holds one.
    public static func run(
        _ options: CommandLineOptions, simulates: (OptionValues) throws(UsageError) -> Bool = { _ in false },
        _ body: @escaping @Sendable (OptionValues, UVLoop) async throws -> any RunningService
    ) -> Never {
        prepareSignals()
        raiseDescriptorLimit()
        let values: OptionValues
        do {
            let environment = ProcessInfo.processInfo.environment
            let arguments = Array(CommandLine.arguments.dropFirst())
            guard let parsed = try options.parse(arguments, environment: environment) else {
                print(options.help)
                exit(0)
            }
            if parsed.isOn("version") {
                print(IronlingVersion.line(options.program))
                exit(0)
            }
            for notice in OptionEnvironment(environment).notices(program: options.program) { complain(notice) }
            values = parsed
            if try simulates(values) { throw WholeCommand.become(options.program) }
            try tieToParent(values, options.program)
        } catch {
            complain("\(options.program): \(ErrorText.sentence(error))")
            exit(64)
        }
        // Nothing is in flight before it takes calls, and its loop may be busy with weights.
        for number in [SIGINT, SIGTERM] { signal(number) { _ in _exit(0) } }
        let loop = UVLoop()
        loop.start()
        Task(executorPreference: loop) {
            do {
                let ports = values.text("metrics-port") == nil ? [] : ["metrics-port"]
                let values = try hold(ports, values, on: loop)
                let service = try await body(values, loop)
                let web = try serveMetrics(of: service, values, loop)
                ServiceReport(values).tell(.ready)
                let stopping = StopRequests(on: loop)
                for number in [SIGINT, SIGTERM] {
                    loop.onSignal(number) { stopping.stop(service, web, loop, options.program) }
                }
            } catch {
                complain("\(options.program): \(ErrorText.sentence(error))")
                exit(error is UsageError ? 64 : 1)
            }
        }
        loop.join()
        exit(0)
    }

    /// Shows on a terminal what a slow command is at, in one line that the next call replaces; nil clears it.
    public static func progress(_ text: String?) {
        guard isatty(STDERR_FILENO) == 1 else { return }
        StandardStream.error.write("\r\u{1B}[K\(text ?? "")")
    }

    /// Ignores SIGPIPE and unblocks everything else: a parent whose threads block signals hands that mask down, and a
    /// process that inherits it would never hear of SIGTERM or of its children's end.
    public static func prepareSignals() {
        signal(SIGPIPE, SIG_IGN)
        var none = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, nil)
    }

    /// Takes as many descriptors as the system allows: the usual soft limit is below the connections we accept.
    public static func raiseDescriptorLimit() {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(resource, &limit)
    }

    /// The secret in the file named by `--secret-file`; empty without one.
    ///
    /// - Throws: `UsageError` when the file cannot be read or holds no secret.
    public static func secret(_ values: OptionValues, option: String = "secret-file") throws -> [UInt8] {
        try secret(file: values.text(option))
    }

    /// The secret in a file; empty without one. The line end that an editor leaves behind it is no part of it.
    ///
    /// - Throws: `UsageError` when the file cannot be read or holds no secret.
    public static func secret(file: String?) throws -> [UInt8] {
        guard let file else { return [] }
        guard let data = FileManager.default.contents(atPath: file), data.count <= 4096 else {
            throw StartError("the secret file \(file) cannot be read or has more than 4096 bytes")
        }
        let secret = Array(data[..<(data.lastIndex { $0 != 0x0A && $0 != 0x0D }.map { $0 + 1 } ?? data.startIndex)])
        guard !secret.isEmpty else { throw StartError("the secret file \(file) is empty, and so is no secret") }
        return secret
    }

    /// Prints one line on standard error.
    public static func complain(_ line: String) { StandardStream.error.write(line + "\n") }

    /// Prints one line on standard output at once.
    public static func announce(_ line: String) { StandardStream.output.write(line + "\n") }

    /// Announces that a service takes calls on `port`; `sentence` says what it holds.
    public static func announce(_ service: any RunningService, port: Int, _ sentence: String) {
        announce("ironling-\(service.name) ready on port \(port): \(sentence)")
    }

    /// A logger of a service on standard error, at the level of `--log-level`.
    ///
    /// - Throws: `UsageError` for a level that there is not.
    public static func logger(_ values: OptionValues, service: String) throws(UsageError) -> Logger {
        guard let level = LogLevel(rawValue: try values.required("log-level")) else {
            throw UsageError("--log-level is debug, info, warning or error")
        }
        return Logger(service: service, minimumLevel: level)
    }

    /// Logs what a service has allocated for good, by name, in bytes or things.
    ///
    /// - Throws: `UsageError` for a level that there is not.
    public static func logMemory(_ values: OptionValues, service: String, _ memory: [String: Int64]) throws {
        var logger = try logger(values, service: service)
        for (name, amount) in memory.sorted(by: { $0.key < $1.key }) {
            logger = logger.adding([name: LogValue(amount)])
        }
        logger.info("memory")
    }

    private static func serveMetrics(
        of service: any RunningService, _ values: OptionValues, _ loop: UVLoop
    ) throws -> HTTPServer? {
        guard values.text("metrics-port") != nil else { return nil }
        var limits = HTTPLimits()
        (limits.connections, limits.bodyBytes) = (64, 0)
        let web = HTTPServer(loop: loop, limits: limits, handler: AdminEndpoint(service, loop: loop))
        let port = try web.listen(
            host: try values.host(), port: try values.integer("metrics-port", in: 0...65535))
        announce("metrics on port \(port)")
        return web
    }

    /// Without the process that started it nobody is left to stop it or to show anything to.
    private static func tieToParent(_ values: OptionValues, _ program: String) throws(UsageError) {
        guard values.text("parent") != nil else { return }
        let parent = try values.integer("parent", in: 1...Int(Int32.max))
        ChildProcess.endWithParent()
        guard getppid() == parent else {
            complain("\(program): the process that started it has ended")
            exit(1)
        }
    }

    /// Takes the ports of these options for `--host` at once, before anything that takes long, and tells the parent.
    /// The values that come back name the ports that were chosen for 0.
    ///
    /// - Throws: `UsageError` for what is no port, `LoopError` for one that is taken.
    public static func hold(_ options: [String], _ values: OptionValues, on loop: UVLoop) throws -> OptionValues {
        try options.reduce(values) { held, option in
            let port = try take(values.integer(option, in: 0...65535), of: option, host: values.host(), on: loop)
            ServiceReport(values).tell(.holds(option: option, port: port))
            return held.setting(option, to: "\(port)")
        }
    }

    private static func take(_ port: Int, of option: String, host: String, on loop: UVLoop) throws -> Int {
        do throws(LoopError) { return try loop.reserve(host: host, port: port) } catch {
            guard error.isAddressInUse else { throw error }
            throw StartError(
                "port \(port) on \(host) is in use by another program; --\(option) chooses another, or 0 a free one")
        }
    }
}

/// The first signal lets a service finish what is in flight, a second one does not. Confined to its loop.
private final class StopRequests: Sendable {
    private let isStopping: LoopBound<Bool>

    init(on loop: UVLoop) { isStopping = LoopBound(false, on: loop) }

    func stop(_ service: any RunningService, _ web: HTTPServer?, _ loop: UVLoop, _ program: String) {
        guard !isStopping.value else {
            ServiceProcess.complain("\(program): stopped before what was in flight was done")
            exit(1)
        }
        isStopping.value = true
        Task(executorPreference: loop) {
            await service.drain()
            web?.close()
            exit(0)
        }
    }
}
