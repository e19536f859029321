import Checkpoint
import Foundation
import Glibc
import Testing

/// Every way a hub, a clone or a copy leaves a checkpoint behind.
struct ModelFolderTests {
    /// A folder that is removed with the value; it holds a checkpoint in `source`.
    private final class Place {
        let root: URL

        init(shards: Int = 1) throws {
            root = FileManager.default.temporaryDirectory.appendingPathComponent("ironling-\(UUID().uuidString)")
            try write(configuration(), "source/config.json")
            try write(Data(#"{"temperature": 0.5}"#.utf8), "source/generation_config.json")
            if shards == 1 { try write(safetensors([.floats("x", [2])]), "source/model.safetensors") }
            guard shards > 1 else { return }
            var map: [String: String] = [:]
            for shard in 1...shards {
                let name = "model-0000\(shard)-of-0000\(shards).safetensors"
                map["x\(shard)"] = name
                try write(safetensors([.floats("x\(shard)", [2])]), "source/\(name)")
            }
            try write(
                JSONSerialization.data(withJSONObject: ["weight_map": map]), "source/model.safetensors.index.json")
        }

        deinit {
            _ = chmod(path("source"), 0o700)
            try? FileManager.default.removeItem(at: root)
        }

        func path(_ name: String) -> String { root.appendingPathComponent(name).path }

        func write(_ data: Data, _ name: String) throws {
            let file = root.appendingPathComponent(name)
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try data.write(to: file)
        }

        func link(_ name: String, to target: String) throws {
            let link = root.appendingPathComponent(name)
            try FileManager.default.createDirectory(
                at: link.deletingLastPathComponent(), withIntermediateDirectories: true)
            try FileManager.default.createSymbolicLink(atPath: link.path, withDestinationPath: target)
        }

        /// The source as huggingface_hub lays it out, the files as links into `blobs`.
        func cache(_ name: String = "models--acme--model", revision: String = "0123abcd", ref: String? = "0123abcd")
            throws
        {
            for (number, file) in try FileManager.default.contentsOfDirectory(atPath: path("source")).enumerated() {
                let content = try Data(contentsOf: root.appendingPathComponent("source/\(file)"))
                try write(content, "\(name)/blobs/\(revision)\(number)")
                try link("\(name)/snapshots/\(revision)/\(file)", to: "../../blobs/\(revision)\(number)")
            }
            if let ref { try write(Data(ref.utf8), "\(name)/refs/main") }
        }

        func open(_ name: String) throws -> Checkpoint { try Checkpoint(ModelFolder(path(name))) }

        func refusal(_ name: String) -> String {
            do {
                _ = try open(name)
                return "accepted"
            } catch { return "\(error)" }
        }
    }

    private func expectSame(_ opened: Checkpoint, _ place: Place, _ name: String) throws {
        let source = try place.open("source")
        #expect(opened.fingerprint == source.fingerprint && opened.tensors == source.tensors)
        #expect(try opened.generationDefaults().temperature == 0.5)
        #expect(opened.name == name)
        let tensors = try TensorSet(opened) { _ in true }
        #expect(tensors.byteCount == source.tensors.values.reduce(0) { $0 + $1.entry.byteCount })
    }

    @Test(
        arguments: [1, 3],
        [
            "models--acme--model/snapshots/0123abcd", "models--acme--model", "models--acme--model/",
            "models--acme--model/snapshots",
        ])
    func aHubsCacheIsTheCheckpoint(shards: Int, path: String) throws {
        let place = try Place(shards: shards)
        try place.cache()
        try expectSame(place.open(path), place, "acme/model")
    }

    @Test func linksToLinksAndToFoldersAreFollowed() throws {
        let place = try Place()
        try place.cache()
        try place.link("mine", to: "models--acme--model/snapshots/0123abcd")
        try place.link("again", to: "mine")
        try place.link("whole", to: "models--acme--model")
        for file in ["config.json", "generation_config.json", "model.safetensors"] {
            try place.link("linked/\(file)", to: "../mine/\(file)")
        }
        try expectSame(place.open("mine"), place, "mine")
        try expectSame(place.open("again/"), place, "again")
        try expectSame(place.open("linked"), place, "linked")
        #expect(try place.open("whole").fingerprint == place.open("source").fingerprint)
    }

    @Test func aRevisionByAnotherNameAndACacheWithoutLinksLoad() throws {
        let place = try Place()
        // On file systems without links the files themselves lie in the snapshot.
        for file in ["config.json", "generation_config.json", "model.safetensors"] {
            try place.write(
                Data(contentsOf: place.root.appendingPathComponent("source/\(file)")),
                "models--acme--model/snapshots/ffff/\(file)")
        }
        try expectSame(place.open("models--acme--model"), place, "acme/model")
        // The mount of a cache folder has any name.
        try place.link("model", to: "models--acme--model")
        #expect(try ModelFolder(place.path("model")).name == "model")
        try place.cache("models--solo", ref: "0123abcd\n")
        #expect(try place.open("models--solo").name == "solo")
    }

    @Test func ofSeveralRevisionsMainCountsAndWithoutItOneMustBeNamed() throws {
        let place = try Place()
        try place.cache(revision: "aaaa", ref: nil)
        try place.cache(revision: "bbbb", ref: nil)
        let sentence = place.refusal("models--acme--model")
        for part in ["has no refs/main and 2 revisions", "snapshots/aaaa", "snapshots/bbbb"] {
            #expect(sentence.contains(part), "\(sentence)")
        }
        try place.write(Data("bbbb".utf8), "models--acme--model/refs/main")
        #expect(try ModelFolder(place.path("models--acme--model")).directory.lastPathComponent == "bbbb")
        try place.write(Data("cccc".utf8), "models--acme--model/refs/main")
        #expect(place.refusal("models--acme--model").contains("names the revision cccc in refs/main"))
        try place.write(Data("../../etc".utf8), "models--acme--model/refs/main")
        #expect(place.refusal("models--acme--model").contains("names no revision"))
        try place.write(Data(), "models--empty--model/blobs/x")
        #expect(place.refusal("models--empty--model").contains("download is not complete"))
    }

    @Test func aSnapshotWithoutItsBlobsSaysWhatToMount() throws {
        let place = try Place()
        try place.cache()
        try FileManager.default.removeItem(atPath: place.path("models--acme--model/blobs"))
        let sentence = place.refusal("models--acme--model/snapshots/0123abcd")
        for part in ["config.json", "is a link to ../../blobs/", "whole models--… folder"] {
            #expect(sentence.contains(part), "\(sentence)")
        }
    }

    @Test func aFolderThatCannotBeWrittenIsRead() throws {
        let place = try Place()
        #expect(chmod(place.path("source"), 0o500) == 0)
        try expectSame(place.open("source"), place, "source")
    }

    @Test func missingShardsAreCounted() throws {
        let place = try Place(shards: 3)
        try FileManager.default.removeItem(atPath: place.path("source/model-00002-of-00003.safetensors"))
        try place.write(Data([1]), "source/.cache/huggingface/download/x.incomplete")
        let sentence = place.refusal("source")
        for part in [
            "model-00002-of-00003.safetensors is missing", "1 missing of the 3 files", "not complete", "x.incomplete",
        ] {
            #expect(sentence.contains(part), "\(sentence)")
        }
    }

    @Test(arguments: [
        ("model.Q4_K_M.gguf", "GGUF"), ("pytorch_model.bin", "pickle"), ("consolidated.00.pth", "pickle"),
        ("model.onnx", "ONNX"), ("weights.npz", "MLX"), ("tf_model.h5", "TensorFlow"),
        ("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        ("model.safetensors.incomplete", "not complete"),
    ])
    func aFolderOfAnotherFormatIsNamed(file: String, sentence: String) throws {
        let place = try Place()
        try FileManager.default.removeItem(atPath: place.path("source/model.safetensors"))
        try place.write(Data("x".utf8), "source/\(file)")
        #expect(place.refusal("source").contains(sentence), "\(place.refusal("source"))")
        #expect(place.refusal("source").contains(file))
    }

    @Test func aFolderWithoutAConfigurationIsExplained() throws {
        let place = try Place()
        try place.write(Data("GGUF".utf8), "other/model.gguf")
        #expect(place.refusal("other").contains("model.gguf is a GGUF file"))
        #expect(place.refusal("other/model.gguf").contains("is a GGUF file"))
        #expect(place.refusal("source/config.json").contains("is a file; what is asked for is the folder it lies in"))
        let above = place.refusal("")
        #expect(above.contains("config.json is missing") && above.contains("\(place.path("source"))"), "\(above)")
        try place.cache("hub/models--acme--model")
        #expect(place.refusal("hub").contains("hub/models--acme--model"))
    }

    @Test(arguments: [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"), ("", "is empty"),
        ("<!DOCTYPE html>", "web page"), ("GGUF\u{3}\0\0\0\0\0\0", "GGUF"),
    ])
    func aFileThatIsAnotherIsNamed(content: String, sentence: String) throws {
        for file in ["config.json", "generation_config.json", "model.safetensors"] {
            let place = try Place()
            try place.write(Data(content.utf8), "source/\(file)")
            #expect(place.refusal("source").contains(sentence), "\(file): \(place.refusal("source"))")
            #expect(place.refusal("source").contains(file))
        }
    }

    @Test(arguments: [
        ("inclusionAI/Ling-mini-2.0", "models--inclusionAI--Ling-mini-2.0"),
        ("https://huggingface.co/inclusionAI/Ling-2.6-flash", "models--inclusionAI--Ling-2.6-flash"),
    ])
    func aRepositoryIsNotDownloadedAndSaidSo(id: String, folder: String) {
        let sentence = refusal { _ = try ModelFolder(id) }
        #expect(sentence?.contains("nothing is downloaded by itself") == true, "\(sentence ?? "accepted")")
        #expect(sentence?.contains("hf download") == true && sentence?.contains(folder) == true)
    }

    @Test func whatIsNotThereIsSaidToBeNot() throws {
        let place = try Place()
        try place.link("gone", to: "nowhere")
        #expect(place.refusal("gone").contains("is a link to nowhere, and nothing is there"))
        #expect(place.refusal("none").hasSuffix("is not there"))
        #expect(refusal { _ = try ModelFolder("~/models/ling") }?.contains("only a shell turns ~") == true)
    }
}
