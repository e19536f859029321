import Files
import Foundation

/// What a folder holds that has no checkpoint of ours in it: other formats, parts of a download, checkpoints further down.
enum FormatHint {
    private static let formats: [(endings: [String], sentence: String)] = [
        ([".gguf"], FileKind.gguf.sentence),
        ([".bin", ".pt", ".pth", ".ckpt"], FileKind.pickle.sentence),
        ([".onnx"], "is an ONNX file; Ironling reads safetensors: use the repository's .safetensors files"),
        ([".npz"], "is a file of MLX; Ironling reads safetensors: use the original repository"),
        ([".h5", ".msgpack"], FileKind.hdf5.sentence.replacing("an HDF5 file", with: "a TensorFlow or Flax file")),
    ]

    /// What a file is by its first bytes or else by its name, and what to do; nil when it may be one of ours.
    static func sentence(ofFile path: String) -> String? {
        if let file = try? OpenFile(path), let bytes = try? file.read(64), let kind = FileKind(beginning: bytes) {
            return kind.sentence
        }
        return formats.first { format in format.endings.contains { path.lowercased().hasSuffix($0) } }?.sentence
    }

    /// What is in a folder that lacks `wanted`, to stand behind a sentence that says so; empty when nothing helps.
    static func sentence(inFolder folder: URL, without wanted: String) -> String {
        let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).sorted()
        if names.isEmpty { return ": the folder is empty" }
        if let partial = incomplete(folder) {
            return ": the download is not complete (\(partial)); start it again"
        }
        for format in formats {
            guard let name = names.first(where: { name in format.endings.contains { name.lowercased().hasSuffix($0) } })
            else { continue }
            return ": \(name) \(format.sentence)"
        }
        let weights = names.filter { $0.hasSuffix(".safetensors") }
        if wanted != "config.json", !weights.isEmpty {
            return ", but \(weights.count) other .safetensors file\(weights.count == 1 ? "" : "s") (\(weights[0])"
                + "\(weights.count == 1 ? "" : ", …")): get the file model.safetensors.index.json too, which says what is in them"
        }
        let below = names.filter { OpenFile.isThere(folder.appendingPathComponent("\($0)/\(wanted)").path) }
        let caches = names.filter { $0.hasPrefix("models--") }
        guard !(below + caches).isEmpty else { return "" }
        let shown = (below + caches).prefix(8).map { folder.appendingPathComponent($0).path }
        return ": name one of the folders in it: \(shown.joined(separator: ", "))"
    }

    /// A file that a download has begun, in the folder, in its cache of downloads, or among the blobs of a hub's cache.
    static func incomplete(_ folder: URL) -> String? {
        let blobs = folder.deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("blobs")
        for place in [folder, folder.appendingPathComponent(".cache/huggingface/download"), blobs] {
            let names = (try? FileManager.default.contentsOfDirectory(atPath: place.path)) ?? []
            let endings = [".incomplete", ".part", ".aria2", ".crdownload"]
            if let name = names.sorted().first(where: { name in endings.contains { name.hasSuffix($0) } }) {
                return place.appendingPathComponent(name).path
            }
        }
        return nil
    }
}
