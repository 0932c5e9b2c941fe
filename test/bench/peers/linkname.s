// With a file of assembly the compiler allows functions without a body: see nebulaParse.
