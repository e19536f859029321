import Foundation
import Testing

/// Commands whose reader has gone, as in `ironling … | head`.
@Suite struct ClosedPipeTests {
    /// A pipe that nobody reads.
    private func closedPipe() throws -> Pipe {
        let pipe = Pipe()
        try pipe.fileHandleForReading.close()
        return pipe
    }

    @Test func whatNobodyReadsCrashesNoCommand() throws {
        let model = Executables.goldens.appendingPathComponent("base").path
        let cases: [(arguments: [String], status: Int32)] = [
            (["up"], 64), (["nothing"], 64), (["generate", "--model", model, "--prompt-ids", "1"], 0),
            (["generate", "--model", model, "--prompt-ids", "1", "--in-process", "--json"], 0),
            (["simulate", "moe", "--tokens", "8"], 0), (["tokenize", "--model", model], 1),
        ]
        for (arguments, status) in cases {
            let process = Process()
            process.executableURL = Executables.folder.appendingPathComponent("ironling")
            process.arguments = arguments
            process.standardInput = FileHandle.nullDevice
            process.standardOutput = try closedPipe()
            process.standardError = try closedPipe()
            try process.run()
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == status, "\(arguments)")
        }
    }
}
