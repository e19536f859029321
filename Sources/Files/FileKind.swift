/// What a file is that stands where another was expected, told by its first bytes.
public enum FileKind: Sendable, Equatable, CaseIterable {
    /// The text that Git LFS and Xet leave in place of a large file.
    case largeFilePointer
    /// A page a web server sent instead of the file.
    case webPage
    /// llama.cpp's format.
    case gguf
    /// A ZIP archive, as `torch.save` writes it.
    case archive
    /// A Python pickle, as `torch.save` wrote it before.
    case pickle
    /// An HDF5 file, as TensorFlow and Keras write it.
    case hdf5

    /// The kind of a file that begins with these bytes, nil when they are none of these.
    public init?(beginning bytes: [UInt8]) {
        let found = Self.allCases.first { kind in kind.beginnings.contains { bytes.starts(with: $0) } }
        guard let found else { return nil }
        self = found
    }

    private var beginnings: [[UInt8]] {
        switch self {
        case .largeFilePointer:
            [
                "version https://git-lfs.github.com/", "version https://hawser.github.com/",
                "version http://git-media.io/",
            ]
            .map { Array($0.utf8) }
        case .webPage: ["<!DOCTYPE", "<!doctype", "<html", "<HTML", "<?xml"].map { Array($0.utf8) }
        case .gguf: [Array("GGUF".utf8)]
        case .archive: [[0x50, 0x4B, 0x03, 0x04]]
        case .pickle: [[0x80, 0x02], [0x80, 0x03], [0x80, 0x04], [0x80, 0x05]]
        case .hdf5: [[0x89, 0x48, 0x44, 0x46]]
        }
    }

    /// What the file is and what to do, to stand behind the file's name.
    public var sentence: String {
        switch self {
        case .largeFilePointer:
            "is a Git LFS pointer, not the file: git lfs pull in its folder gets the file itself"
        case .webPage:
            "is a web page, not the file: download it from the repository's \"resolve\" address, or with hf download"
        case .gguf:
            "is a GGUF file (llama.cpp); Ironling reads safetensors: use the repository that has .safetensors files"
        case .archive, .pickle:
            "is a PyTorch file (pickle); Ironling reads safetensors: use the repository's .safetensors files"
        case .hdf5: "is an HDF5 file; Ironling reads safetensors: use the repository's .safetensors files"
        }
    }
}
