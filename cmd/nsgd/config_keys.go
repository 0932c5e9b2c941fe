package main

import (
	"reflect"
	"strings"
)

// allowedKeys lists the keys of one of the configuration's structs.
func allowedKeys(structName string) string {
	for _, t := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[AttachmentConfig](), reflect.TypeFor[FlowsConfig](),
		reflect.TypeFor[FragmentsConfig](), reflect.TypeFor[TemplatesConfig](),
		reflect.TypeFor[TimeoutsConfig](), reflect.TypeFor[MetricsConfig](), reflect.TypeFor[ControlConfig](),
		reflect.TypeFor[PlatformConfig](), reflect.TypeFor[FlowLogConfig](),
	} {
		if t.Name() != structName {
			continue
		}
		keys := make([]string, t.NumField())
		for i := range keys {
			keys[i] = t.Field(i).Tag.Get("yaml")
		}
		return "allowed are " + strings.Join(keys, ", ")
	}
	return "not allowed here"
}
