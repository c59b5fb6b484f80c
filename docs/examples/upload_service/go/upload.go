// Uploads one song. Needs franz-go alone: `go run .`
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	servers := cmp.Or(os.Getenv("COLDSTART_KAFKA__BOOTSTRAP_SERVERS"), "localhost:9092")
	topic := cmp.Or(os.Getenv("COLDSTART_TOPICS__PREFIX"), "coldstart.") + "song-uploads"
	song := `{"song_id":"s-81","revision":1,"title":"Small Hours","artist_ids":["a-7"],"tags":{"dream pop":3}}`
	record := &kgo.Record{Topic: topic, Key: []byte("s-81"), Value: []byte(song), Headers: []kgo.RecordHeader{
		{Key: "ce_id", Value: []byte("s-81/1")}, // sent again under the same id, it changes nothing
		{Key: "ce_source", Value: []byte("upload-service/go")},
		{Key: "ce_specversion", Value: []byte("1.0")},
		{Key: "ce_time", Value: []byte(time.Now().UTC().Format(time.RFC3339Nano))},
		{Key: "ce_type", Value: []byte("coldstart.song.uploaded.v1")},
		{Key: "content-type", Value: []byte("application/json")},
	}}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(servers, ",")...))
	if err == nil {
		told := make(chan error, 1)
		client.Produce(context.Background(), record, func(_ *kgo.Record, err error) { told <- err })
		select { // By itself it would wait for an acknowledgement for ever.
		case err = <-told:
		case <-time.After(30 * time.Second):
			err = errors.New("s-81: not acknowledged within 30 s; run this again")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("sent to %s[%d]\n", record.Topic, record.Partition)
}
