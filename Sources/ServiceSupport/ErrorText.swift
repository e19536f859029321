import Foundation

/// Errors as users read them.
public enum ErrorText {
    /// One sentence: our own errors are one; of Foundation's, what the system said, or else what it would show a user.
    public static func sentence(_ error: any Error) -> String {
        if let error = error as? POSIXError { return String(cString: strerror(error.code.rawValue)) }
        if let error = error as? CocoaError {
            return error.underlying.map(sentence) ?? error.localizedDescription
        }
        if type(of: error) is NSError.Type {
            let error = error as NSError
            guard error.domain == NSPOSIXErrorDomain else { return error.localizedDescription }
            return String(cString: strerror(Int32(clamping: error.code)))
        }
        return "\(error)"
    }
}
