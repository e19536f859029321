import EventLoop
import Foundation
import Glibc
import ServiceSupport
import Testing

/// Services that wait for others, as real processes.
@Suite(.serialized, .timeLimit(.minutes(3))) struct WaitingTests {
    private static let model = ["--model", Executables.modelFolder("base").path]

    /// A process and what it has said on standard error so far.
    private final class Program: @unchecked Sendable {
        let process = Process()
        private let file: URL

        init(_ program: String, _ arguments: [String]) throws {
            file = FileManager.default.temporaryDirectory.appendingPathComponent("said-\(UUID().uuidString)")
            _ = FileManager.default.createFile(atPath: file.path, contents: nil)
            process.executableURL = Executables.folder.appendingPathComponent(program)
            process.arguments = WaitingTests.model + ["--log-level", "error"] + arguments
            process.standardOutput = FileHandle.nullDevice
            process.standardError = try FileHandle(forWritingTo: file)
            try process.run()
        }

        var said: String { (try? String(contentsOf: file, encoding: .utf8)) ?? "" }

        deinit {
            if process.isRunning { kill(process.processIdentifier, SIGKILL) }
            try? FileManager.default.removeItem(at: file)
        }
    }

    private func secret(_ text: String) throws -> URL {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("secret-\(UUID().uuidString)")
        try Data(text.utf8).write(to: file)
        return file
    }

    /// A free port of a moment ago.
    private func freePort() async throws -> Int {
        let loop = UVLoop()
        loop.start()
        let port = try await Task(executorPreference: loop) { try loop.reserve(host: "127.0.0.1", port: 0) }.value
        loop.stop()
        loop.join()
        return port
    }

    @Test func whoIsNotThereIsNamedWithinFiveSeconds() async throws {
        let (experts, sampler) = (try await freePort(), try await freePort())
        let service = try Program(
            "ironling-attention",
            ["--port", "0", "--experts", "127.0.0.1:\(experts)", "--sampler", "[::1]:\(sampler)"])
        let isSaid = await ServiceProcesses.wait(seconds: 5) { service.said.contains("sampler") }
        #expect(isSaid, "\(service.said)")
        #expect(service.said.contains("waiting for experts process 0 at 127.0.0.1:\(experts): "), "\(service.said)")
        #expect(service.said.contains("refused") && service.said.contains("[::1]:\(sampler)"), "\(service.said)")
        #expect(service.process.isRunning)
        kill(service.process.processIdentifier, SIGTERM)
        let isOver = await ServiceProcesses.wait(seconds: 2) { !service.process.isRunning }
        #expect(isOver && service.process.terminationStatus == 0)
    }

    @Test func aWrongSecretIsNotWaitedForAndALineEndIsNoPartOfIt() async throws {
        let (one, same, other) = (try secret("0123456789"), try secret("0123456789\n"), try secret("9876543210"))
        defer { for file in [one, same, other] { try? FileManager.default.removeItem(at: file) } }
        let (experts, sampler) = (try await freePort(), try await freePort())
        let first = try Program("ironling-experts", ["--port", "\(experts)", "--secret-file", same.path])
        let second = try Program("ironling-sampler", ["--port", "\(sampler)", "--secret-file", one.path])
        let arguments = ["--port", "0", "--experts", "127.0.0.1:\(experts)", "--sampler", "127.0.0.1:\(sampler)"]
        let stranger = try Program("ironling-attention", arguments + ["--secret-file", other.path])
        let isOver = await ServiceProcesses.wait(seconds: 10) { !stranger.process.isRunning }
        #expect(isOver && stranger.process.terminationStatus == 1, "\(stranger.said)")
        #expect(stranger.said.contains("shared secret differs"), "\(stranger.said)")
        let friend = try Program("ironling-attention", arguments + ["--secret-file", one.path])
        let refused = await ServiceProcesses.wait(seconds: 4) { !friend.process.isRunning }
        #expect(!refused && !friend.said.contains("secret"), "\(friend.said)")
        withExtendedLifetime((first, second)) {}
    }

    @Test func whoDoesNotSpeakOurProtocolIsNotWaitedFor() async throws {
        let set = try await RunningSet("base")
        let service = try Program(
            "ironling-gateway",
            ["--http-port", "0", "--rpc-port", "0"]
                + ["--attention", "127.0.0.1:\(set.httpPort)"])
        let isOver = await ServiceProcesses.wait(seconds: 10) { !service.process.isRunning }
        #expect(isOver && service.process.terminationStatus == 1, "\(service.said)")
        #expect(
            service.said.contains("attention instance at 127.0.0.1:\(set.httpPort) cannot be called"), "\(service.said)"
        )
        #expect(set.stop() == 0)
    }

    @Test func aServiceOfAnotherRoleIsNotWaitedFor() async throws {
        let set = try await RunningSet("base")
        let service = try Program(
            "ironling-gateway",
            ["--http-port", "0", "--rpc-port", "0"]
                + ["--attention", "127.0.0.1:\(set.rpcPort)"])
        let isOver = await ServiceProcesses.wait(seconds: 10) { !service.process.isRunning }
        #expect(isOver && service.process.terminationStatus == 1, "\(service.said)")
        #expect(service.said.contains("cannot be called: "), "\(service.said)")
        #expect(set.stop() == 0)
    }
}
