import Checkpoint
import Foundation
import Testing
import WireProtocol

/// Executables of services hold no simulator: one that is asked for what needs it goes on as the command `ironling`.
@Suite struct WholeCommandTests {
    @Test(arguments: [(["--port", "0"], "ironling-experts", false), (["--slice", "v7x-4"], "ironling", true)])
    func onlyWhatIsTimedOnASliceIsTheWholeCommand(options: [String], program: String, isTimed: Bool) async throws {
        let golden = try KernelFile("bf16-shared")
        let folder = try golden.checkpoint()
        defer { try? FileManager.default.removeItem(at: folder) }
        let service = try RunningExperts(folder, options)
        defer { service.stop() }
        let link = "/proc/\(service.processID)/exe"
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link).hasSuffix("/\(program)"))
        let name = ServiceProcesses.text("/proc/\(service.processID)/cmdline").split(separator: "\0").first
        #expect(name?.hasSuffix("ironling-experts") == true, "it keeps its name")
        let fingerprint = try Checkpoint(directory: folder).fingerprint
        let reply = try await service.call(golden.request, golden.body(), fingerprint: fingerprint)
        #expect((try ExpertsReply(decoding: reply.metadata).simulatedPicoseconds > 0) == isTimed)
        #expect((try await service.counters(fingerprint: fingerprint)["simulated_calls"] != nil) == isTimed)
    }

    @Test(arguments: [
        ("gateway", ["--attention", "127.0.0.1:1"], ["IRONLING_MODE": "emulate"]),
        ("attention", ["--mode", "emulate"], [:]), ("sampler", ["--mode=emulate"], [:]),
        ("experts", ["--numerics", "bf16"], [:]), ("experts", ["--slice", "v7x-4"], [:]),
    ])
    func withoutTheCommandBesideItThatIsRefused(service: String, options: [String], variables: [String: String]) throws
    {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("alone-\(UUID())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let alone = folder.appendingPathComponent("ironling-\(service)")
        try FileManager.default.copyItem(
            at: Executables.folder.appendingPathComponent("ironling-\(service)"), to: alone)
        let run = try Executables.run(
            alone.path, ["--model", "ling-2.6-1t"] + options, environment: variables)
        #expect(run.status == 64)
        #expect(run.error.contains("needs a simulator, which is in the command ironling"), "\(run.error)")
    }
}
