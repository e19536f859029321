import Checkpoint
import Foundation
import Glibc
import Testing

/// Executables started from two checkpoints that look alike: whoever comes last ends with a sentence that says what
/// differs.
@Suite(.timeLimit(.minutes(2))) struct MixedProcessTests {
    /// A service in the background, on a port of its own choice.
    private final class Service {
        let port: Int
        private let process = Process()

        init(_ program: String, _ arguments: [String]) throws {
            process.executableURL = Executables.folder.appendingPathComponent(program)
            process.arguments = arguments + ["--port", "0", "--threads", "1"]
            let output = Pipe()
            process.standardOutput = output
            try process.run()
            var text = ""
            while !text.contains(" ready on port ") {
                let data = output.fileHandleForReading.availableData
                try #require(!data.isEmpty, "\(program) ended before it was ready")
                text += String(decoding: data, as: UTF8.self)
            }
            let digits = text.split(separator: " ready on port ")[1].prefix(while: \.isNumber)
            port = try #require(Int(digits))
        }

        deinit {
            process.terminate()
            process.waitUntilExit()
        }
    }

    /// A gateway that serves over HTTP.
    private final class Gateway {
        let port: Int
        private let process = Process()

        init(_ arguments: [String]) throws {
            process.executableURL = Executables.folder.appendingPathComponent("ironling-gateway")
            process.arguments = arguments + ["--http-port", "0", "--rpc-port", "0"]
            let output = Pipe()
            process.standardOutput = output
            try process.run()
            var text = ""
            while !text.contains(" ready: HTTP port ") {
                let data = output.fileHandleForReading.availableData
                try #require(!data.isEmpty, "the gateway ended before it was ready")
                text += String(decoding: data, as: UTF8.self)
            }
            let digits = text.split(separator: " ready: HTTP port ")[1].prefix(while: \.isNumber)
            port = try #require(Int(digits))
        }

        deinit {
            process.terminate()
            process.waitUntilExit()
        }
    }

    /// A copy of a checkpoint folder that is removed with the value.
    private final class Copy {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("copy-\(UUID().uuidString)")
        var path: String { folder.path }

        init(of source: URL) throws {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            for name in ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"] {
                let file = source.appendingPathComponent(name)
                guard FileManager.default.fileExists(atPath: file.path) else { continue }
                try Data(contentsOf: file).write(to: folder.appendingPathComponent(name))
            }
        }

        deinit { try? FileManager.default.removeItem(at: folder) }

        /// Changes the first byte of a tensor and nothing else.
        func change(_ tensor: String) throws {
            let checkpoint = try Checkpoint(directory: folder)
            let location = try #require(checkpoint.tensors[tensor])
            let handle = try FileHandle(forUpdating: checkpoint.files[location.file])
            try handle.seek(toOffset: UInt64(location.entry.offset))
            let byte = try #require(try handle.read(upToCount: 1)?.first)
            try handle.seek(toOffset: UInt64(location.entry.offset))
            try handle.write(contentsOf: Data([byte ^ 1]))
            try handle.close()
        }
    }

    /// What an attention instance, or a gateway, says when it ends; it must.
    private func refusal(_ program: String, _ arguments: [String]) async throws -> String {
        let result = try await onThreadOfItsOwn { try Executables.run(program, arguments) }
        #expect(result.status == 1, "\(program): \(result.output)")
        return result.error
    }

    @Test func anInstanceIsNotLetInByExpertsOfOtherWeights() async throws {
        let base = Executables.modelFolder("base")
        let changed = try Copy(of: base)
        let tensor = "model.layers.3.mlp.experts.5.down_proj.weight"
        try changed.change(tensor)
        let experts = try Service("ironling-experts", ["--model", changed.path])
        let sampler = try Service("ironling-sampler", ["--model", base.path])
        let message = try await refusal(
            "ironling-attention",
            [
                "--model", base.path, "--port", "0", "--threads", "1", "--experts", "127.0.0.1:\(experts.port)",
                "--sampler", "127.0.0.1:\(sampler.port)",
            ])
        #expect(message.contains("contents differ") && message.contains(tensor), "\(message)")
        withExtendedLifetime((experts, sampler)) {}
    }

    @Test func aGatewayServesWithTheInstancesThatHoldItsCheckpoint() async throws {
        let base = Executables.modelFolder("base")
        let changed = try Copy(of: base)
        try changed.change("model.layers.0.input_layernorm.weight")
        let services = try [base.path, changed.path].map { model in
            let experts = try Service("ironling-experts", ["--model", model])
            let sampler = try Service("ironling-sampler", ["--model", model])
            let attention = try Service(
                "ironling-attention",
                [
                    "--model", model, "--experts", "127.0.0.1:\(experts.port)", "--sampler",
                    "127.0.0.1:\(sampler.port)",
                ])
            return [experts, sampler, attention]
        }
        let instances = services.map { "127.0.0.1:\($0[2].port)" }.joined(separator: ",")
        try await onThreadOfItsOwn {
            let gateway = try Gateway(["--model", base.path, "--attention", instances])
            let result = try Executables.ironling(["health", "--url", "http://127.0.0.1:\(gateway.port)/ready"])
            #expect(result.status == 0, "\(result.error)")
            withExtendedLifetime(gateway) {}
        }
        withExtendedLifetime(services) {}
    }

    @Test func aGatewayOfAnotherTokenizerIsNotLetIn() async throws {
        let model = Executables.modelFolder("ling-tiny")
        let changed = try Copy(of: model)
        let file = changed.folder.appendingPathComponent("tokenizer.json")
        try (try Data(contentsOf: file) + Data("\n".utf8)).write(to: file)
        let experts = try Service("ironling-experts", ["--model", model.path])
        let sampler = try Service("ironling-sampler", ["--model", model.path])
        let attention = try Service(
            "ironling-attention",
            [
                "--model", model.path, "--experts", "127.0.0.1:\(experts.port)", "--sampler",
                "127.0.0.1:\(sampler.port)",
            ])
        let message = try await refusal(
            "ironling-gateway",
            [
                "--model", changed.path, "--http-port", "0", "--rpc-port", "0", "--attention",
                "127.0.0.1:\(attention.port)",
            ])
        #expect(message.contains("contents differ") && message.contains("tokenizer.json"), "\(message)")
        withExtendedLifetime((experts, sampler, attention)) {}
    }
}
