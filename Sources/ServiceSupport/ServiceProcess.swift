import EventLoop
import Foundation
import Glibc
import RPC

/// A service that runs until it is told to stop.
public protocol RunningService: Sendable {
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
        CommandLineOption("model", value: "DIR", help: "checkpoint folder (config.json, safetensors)"),
        CommandLineOption("host", value: "ADDRESS", help: "IPv4 address to listen on", fallback: "127.0.0.1"),
        CommandLineOption("secret-file", value: "FILE", help: "file with the secret that all services share"),
        CommandLineOption("threads", value: "N", help: "threads that compute", fallback: "\(defaultThreads)"),
        CommandLineOption("decay", value: "a|b", help: "decay convention of the linear layers", fallback: "a"),
        CommandLineOption("exit-with-parent", help: "stop when the starting process ends"),
    ]

    /// Processors online.
    public static var defaultThreads: Int { max(1, ProcessInfo.processInfo.activeProcessorCount) }

    /// Parses the command line, starts `body` on a loop of its own and runs until SIGINT or SIGTERM. Exit status: 0
    /// after a stop, 64 for a command line that cannot be used, 1 for anything else.
    public static func run(
        _ options: CommandLineOptions,
        _ body: @escaping @Sendable (OptionValues, UVLoop) async throws -> any RunningService
    ) -> Never {
        prepareSignals()
        let values: OptionValues
        do {
            let arguments = Array(CommandLine.arguments.dropFirst())
            guard let parsed = try options.parse(arguments, environment: ProcessInfo.processInfo.environment) else {
                print(options.help)
                exit(0)
            }
            values = parsed
        } catch {
            complain("\(options.program): \(error)")
            exit(64)
        }
        let loop = UVLoop()
        loop.start()
        Task(executorPreference: loop) {
            do {
                let service = try await body(values, loop)
                for number in [SIGINT, SIGTERM] { loop.onSignal(number) { stop(service, loop) } }
                if values.isOn("exit-with-parent") { watchParent(getppid(), service, loop) }
            } catch {
                complain("\(options.program): \(error)")
                exit(error is UsageError ? 64 : 1)
            }
        }
        loop.join()
        exit(0)
    }

    /// Ignores SIGPIPE and unblocks everything else: a parent whose threads block signals hands that mask down, and a
    /// process that inherits it would never hear of SIGTERM or of its children's end.
    public static func prepareSignals() {
        signal(SIGPIPE, SIG_IGN)
        var none = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, nil)
    }

    /// The secret in the file named by `--secret-file`; empty without one.
    public static func secret(_ values: OptionValues, option: String = "secret-file") throws -> [UInt8] {
        guard let path = values.text(option) else { return [] }
        guard let data = FileManager.default.contents(atPath: path), data.count <= 4096 else {
            throw StartError("--\(option) \(path) cannot be read or has more than 4096 bytes")
        }
        return Array(data)
    }

    /// Prints one line on standard error.
    public static func complain(_ line: String) {
        FileHandle.standardError.write(Data((line + "\n").utf8))
    }

    /// Prints one line on standard output at once.
    public static func announce(_ line: String) {
        FileHandle.standardOutput.write(Data((line + "\n").utf8))
    }

    private static func stop(_ service: any RunningService, _ loop: UVLoop) {
        Task(executorPreference: loop) {
            await service.drain()
            exit(0)
        }
    }

    private static func watchParent(_ parent: Int32, _ service: any RunningService, _ loop: UVLoop) {
        guard getppid() == parent else { return stop(service, loop) }
        loop.schedule(afterMicroseconds: 500_000) { watchParent(parent, service, loop) }
    }
}
