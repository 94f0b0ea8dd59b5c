package main

const usage = `%s is a plugin of buf and protoc; neither is started by hand.

  -version    print the version
  -h          print this

Parameters (opt in buf.gen.yaml, --connect-plugin_opt of protoc). SERVICE: limits one
to a service, by its full name, as in version=kv.v1.KVService:2.1.0.

  paths, module, M…       as for protoc-gen-go, with the values that it is given
  simple                  as protoc-gen-connect-go is given it
  package_suffix=S        as protoc-gen-connect-go is given it ("connect")
  layout=flat             the packages lie in the root of the output, not beside the .pb.go files
  version=[SERVICE:]V     the semantic version (1.0.0)
  type=SERVICE:TYPE       the service type (the name in lower case, without Service at its end)
  requires=[SERVICE:]TYPE[@MINIMUM][;startup][;watch]
                          a service type that implementations call; may be repeated
`
