"""What texts and schedules of GPU targets share, whatever their instructions: functions of a text, order of items."""
