import Files
import Foundation
import Glibc
import Testing

struct OpenFileTests {
    /// A folder that is removed with the value.
    private final class Folder {
        let path: String

        init() throws {
            path = FileManager.default.temporaryDirectory.appendingPathComponent("files-\(UUID().uuidString)").path
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }

        func write(_ text: String, _ name: String) throws {
            let place = URL(fileURLWithPath: "\(path)/\(name)")
            try FileManager.default.createDirectory(
                at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: place)
        }

        func link(_ name: String, to target: String) throws {
            try FileManager.default.createSymbolicLink(atPath: "\(path)/\(name)", withDestinationPath: target)
        }

        func refusal(_ name: String, limit: Int = 1000) -> FileError? {
            do throws(FileError) {
                _ = try OpenFile.content("\(path)/\(name)", limit: limit)
                return nil
            } catch { return error }
        }
    }

    @Test func aLinkToALinkIsTheFileItself() throws {
        let folder = try Folder()
        try folder.write("content", "blobs/abc")
        try folder.link("first", to: "blobs/abc")
        try folder.link("second", to: "first")
        try folder.link("folder", to: "blobs")
        for name in ["first", "second", "folder/abc"] {
            let file = try OpenFile("\(folder.path)/\(name)")
            #expect(file.byteCount == 7)
            #expect(try file.read(100, at: 3) == Array("tent".utf8))
            #expect(try file.read(2) == Array("co".utf8))
            #expect(try file.read(2, at: 50).isEmpty)
        }
    }

    @Test func aLinkWithoutATargetIsNamedWithIt() throws {
        let folder = try Folder()
        try folder.link("model.safetensors", to: "../../blobs/abc")
        try folder.link("loop", to: "loop")
        let error = folder.refusal("model.safetensors")
        #expect(error?.code == .brokenLink)
        for part in ["model.safetensors", "../../blobs/abc", "whole models--… folder"] {
            #expect(error?.description.contains(part) == true, "\(error?.description ?? "read")")
        }
        #expect(folder.refusal("loop")?.code == .brokenLink)
        #expect(OpenFile.isThere("\(folder.path)/model.safetensors"))
        #expect(!OpenFile.isThere("\(folder.path)/other"))
    }

    @Test func whatIsNoFileIsSaidToBeNone() throws {
        let folder = try Folder()
        try folder.write("", "empty")
        try folder.write("x", "folder/x")
        #expect(mkfifo("\(folder.path)/pipe", 0o600) == 0)
        #expect(folder.refusal("empty")?.description.contains("is empty") == true)
        #expect(folder.refusal("folder")?.description.contains("is a folder") == true)
        #expect(folder.refusal("pipe")?.description.contains("not a regular file") == true)
        #expect(folder.refusal("none")?.code == .missing)
        #expect(folder.refusal("folder/x/y")?.code == .missing)
        #expect(folder.refusal("folder/x", limit: 0)?.code == .tooLarge)
    }

    @Test(arguments: [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "git lfs pull"),
        ("<!DOCTYPE html><html>", "web page"), ("GGUF\u{3}", "GGUF"), ("PK\u{3}\u{4}", "PyTorch"),
    ])
    func aFileInPlaceOfAnotherIsNamed(content: String, sentence: String) throws {
        let folder = try Folder()
        try folder.write(content, "config.json")
        let error = folder.refusal("config.json")
        #expect(error?.code == .otherKind)
        #expect(error?.description.contains(sentence) == true, "\(error?.description ?? "read")")
        #expect(error?.description.hasPrefix("config.json ") == true)
    }
}
