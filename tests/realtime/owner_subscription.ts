import { createClient } from '@supabase/supabase-js'

const supabase = createClient(process.env.SUPABASE_URL!, process.env.SUPABASE_ANON_KEY!)
const jobId = process.env.JOB_ID!

await supabase.auth.signInWithPassword({ email: process.env.DEMO_EMAIL!, password: process.env.DEMO_PASSWORD! })

const channel = supabase.channel(`job-events-${jobId}`)
channel.on('postgres_changes', {
  event: 'INSERT',
  schema: 'public',
  table: 'job_events',
  filter: `job_id=eq.${jobId}`
}, (payload) => {
  console.log('job_event:', payload.new)
}).subscribe()
