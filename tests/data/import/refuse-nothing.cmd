# nothing
FOO=1
