/// A value that only its loop touches: every access asserts in debug builds that it is made there, and costs nothing more
/// than the access otherwise. A class whose variables lie in one is `Sendable` without being unchecked.
///
/// Keep several variables in a struct: its members are read and written as members of the box. An access to one member is
/// over before the next begins, as with variables of a class, so do not call out while one is being changed in place.
@dynamicMemberLookup
public final class LoopBound<Value>: @unchecked Sendable {
    /// The loop that may touch the value.
    public let loop: any Loop
    @usableFromInline var stored: Value

    /// From anywhere: nobody else knows the value yet.
    @inlinable public init(_ value: sending Value, on loop: any Loop) {
        self.loop = loop
        stored = value
    }

    /// The value; on its loop only.
    @inlinable public var value: Value {
        get {
            assertOnLoop()
            return stored
        }
        _modify {
            assertOnLoop()
            yield &stored
        }
    }

    /// A member of the value; on its loop only.
    @inlinable public subscript<Member>(dynamicMember path: KeyPath<Value, Member>) -> Member {
        assertOnLoop()
        return stored[keyPath: path]
    }

    /// A member of the value; on its loop only.
    @inlinable public subscript<Member>(dynamicMember path: WritableKeyPath<Value, Member>) -> Member {
        get {
            assertOnLoop()
            return stored[keyPath: path]
        }
        _modify {
            assertOnLoop()
            yield &stored[keyPath: path]
        }
    }

    @inlinable func assertOnLoop() { loop.assertIsolated("called off its event loop") }
}
